"""Images a second in training with one process and with several: `python -m bench.scaling --processes 1 2`.

Without `--processes`: 1, 2, 4, ... up to the cards of this machine, and without cards 1 and 2. Every process has a card
of its own, or as many cores as each of the largest number gets, so that N processes have N times what one has; a batch
is `--batch-size` images for each. The efficiency is their speed against N times that of one.
"""

import json
import os
import sys
from argparse import Namespace
from pathlib import Path
from statistics import median

import torch

from bench.common import empty_cache, parser, quiet, real_images, report, settings
from cxr.common.hardware import cores
from cxr.models import device as devices
from cxr.models.build import build
from cxr.training import distributed
from cxr.training.loop import train
from cxr.training.setup import set_up
from steps.work.processes import start


def work(arguments: Namespace) -> None:
    """Train as one of several processes; the first writes the images a second of every epoch but the first."""
    quiet()
    with distributed.group() as processes:
        os.environ["LOCAL_WORLD_SIZE"] = str(arguments.most)  # not more cores with fewer processes
        picked = devices.pick(arguments.device)
        processes.use(picked)
        devices.prepare(0, deterministic=False)
        torch.set_num_threads(cores())
        keys = {
            "finetune.epochs": arguments.epochs + 1,
            "finetune.patience": arguments.epochs + 1,
            "finetune.batch_size": arguments.batch_size * processes.share.world,
            "finetune.warmup": 0,
            "model.weights": "none",
            "cache.dir": arguments.cache,
        }
        chosen = settings(keys, arguments.profile)
        # The validation set only costs time here: an epoch's images a second are those of training alone.
        manifest = real_images(arguments.images, 40)
        training = set_up(
            build(chosen.model, manifest.classes, seed=0),
            manifest,
            chosen.finetune,
            unfreeze=chosen.finetune.unfreeze,
            device=picked,
            seed=0,
            cache=chosen.cache,
            processes=processes,
        )
        result = train(training)
        if processes.first:
            speeds = [record.images_per_second for record in result.history[1:]]
            Path(arguments.write).write_text(json.dumps(speeds))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--processes", type=int, nargs="+", help="numbers of processes; the first is compared with")
    made.add_argument("--images", type=int, default=512)
    made.add_argument("--epochs", type=int, default=3, help="epochs that are measured, after one that is not")
    made.add_argument("--batch-size", type=int, default=32, help="images of a batch for each process")
    made.add_argument("--profile", default="cpu")
    made.add_argument("--most", type=int, help="for the processes themselves")
    made.add_argument("--write", help="for the processes themselves")
    made.add_argument("--cache", help="for the processes themselves")
    arguments = made.parse_args()
    if arguments.write:
        work(arguments)
        return
    cards = torch.cuda.device_count() if arguments.device in ("auto", "cuda") else 0
    counts = arguments.processes or [2**power for power in range(max(2, cards).bit_length())]
    speeds: dict[int, float] = {}
    with empty_cache() as folder:
        for count in counts:
            written = Path(folder) / f"{count}.json"
            more = {"--write": written, "--cache": f"{folder}/arrays", "--most": 1 if cards else max(counts)}
            command = ["-m", "bench.scaling", *sys.argv[1:], *(str(word) for pair in more.items() for word in pair)]
            logs = Path(folder) / f"logs-{count}"
            logs.mkdir()
            if not start(command, count, logs):
                sys.exit(f"{count} processes: the first of them failed")
            speeds[count] = median(json.loads(written.read_text()))
    one = speeds[counts[0]] / counts[0]
    rows = [("profile", f"{arguments.profile}, {arguments.images} images, {arguments.batch_size} a batch and process")]
    rows += [
        (f"{count} process{'es' if count > 1 else ''}", f"{speed:.0f} images/s, efficiency {speed / count / one:.2f}")
        for count, speed in speeds.items()
    ]
    report(arguments, "Training in several processes", rows, {"images_per_second": speeds})


if __name__ == "__main__":
    main()
