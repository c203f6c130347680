"""What keeping freed memory saves in a training step: `python -m bench.memory --blocks all --rounds 3`.

CPU time of one thread, by the user and by the kernel, of processes with and without `keep_freed`, in turn.
"""

import argparse
import json
import resource
import sys
from statistics import median

import torch

from bench.common import apart, empty_cache, parser, peak, quiet, real_images, report, settings
from bench.input import one_pass
from cxr.models import device as devices
from cxr.models import memory
from cxr.models.build import build
from cxr.training.setup import set_up

MODES = ("as it is", "kept")


def measure(given: argparse.Namespace) -> dict[str, float]:
    """CPU milliseconds an image of the second epoch, in this process, and its peak memory in GB."""
    quiet()
    if given.mode == MODES[0]:
        memory.keep_freed = lambda: None
    devices.prepare(0, deterministic=False)
    torch.set_num_threads(1)
    manifest = real_images(given.images, 32)
    with empty_cache() as folder:
        keys = {"model.weights": "none", "cache.dir": folder, "finetune.compile": "false"}
        chosen = settings(keys, given.profile)
        network = build(chosen.model, manifest.classes, seed=0)
        unfreeze = given.blocks if given.blocks == "all" else int(given.blocks)
        where = devices.pick("cpu")
        training = set_up(
            network, manifest, chosen.finetune, unfreeze=unfreeze, device=where, seed=0, cache=chosen.cache
        )
        one_pass(training)
        before = resource.getrusage(resource.RUSAGE_SELF)
        one_pass(training)
        after = resource.getrusage(resource.RUSAGE_SELF)
    count = training.train.images / 1000
    return {
        "user": (after.ru_utime - before.ru_utime) / count,
        "kernel": (after.ru_stime - before.ru_stime) / count,
        "peak": peak() / 1e9,
    }


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--images", type=int, default=256)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--blocks", default="5", help="blocks that are trained, or all")
    made.add_argument("--profile", default="cpu", help="whose network and augmentation")
    made.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    given = made.parse_args()
    if given.mode:
        print(json.dumps(measure(given)))
        return
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for _ in range(given.rounds):
        for mode in MODES:
            found[mode].append(apart("bench.memory", *sys.argv[1:], "--mode", mode))
    total = {mode: [one["user"] + one["kernel"] for one in rounds] for mode, rounds in found.items()}
    ratio = median(kept / plain for plain, kept in zip(*total.values(), strict=True))
    rows = [("images", f"{given.images}, {given.blocks} blocks trained, as by the profile {given.profile}")]
    for mode, rounds in found.items():
        user, kernel, most = (median(one[name] for one in rounds) for name in ("user", "kernel", "peak"))
        rows.append((mode, f"{user:.1f} ms an image by the program, {kernel:.1f} by the kernel; peak {most:.2f} GB"))
    rows.append(("ratio", f"{ratio:.3f} (median of {given.rounds} pairs)"))
    report(given, "A training step with freed memory kept", rows, {"ratio": ratio, "rounds": found})


if __name__ == "__main__":
    main()
