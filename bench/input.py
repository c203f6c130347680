"""Does training wait for its images? The real loop against the same steps on one batch that is in memory already:
`python -m bench.input --images 256 --rounds 5`. Then images per second of inference, from decoded rasters."""

import time
from dataclasses import replace
from statistics import median

import numpy as np
import torch

from bench.common import empty_cache, parser, quiet, real_images, report, settings, synchronise
from cxr.evaluation.predictor import Predictor
from cxr.models import device as devices
from cxr.models.build import build
from cxr.models.bundle import Bundle
from cxr.training.loop import Training, set_train_mode
from cxr.training.setup import set_up


class Fixed:
    """One batch, as often as an epoch has batches."""

    def __init__(self, batches):
        self.x, self.y = next(iter(batches.epoch(1)))
        self.count = len(batches)
        self.images = self.count * len(self.y)

    def __len__(self) -> int:
        return self.count

    def epoch(self, _epoch: int):
        for _ in range(self.count):
            yield self.x, self.y


def one_pass(t: Training) -> None:
    """The steps of one epoch, as `cxr.training.loop.train` takes them."""
    set_train_mode(t.suffix, t.settings.batch_norm)
    for x, y in t.train.epoch(1):
        t.step(x, y, len(y))


def inference(network, rasters: np.ndarray, batch_size: int, where: devices.Device, rounds: int) -> list[float]:
    """Images per second of the predictor that evaluates, in float32, for `rasters` (n, S, S)."""
    predictor, rates = Predictor(Bundle(network), str(where.device)), []
    for _ in range(rounds + 1):
        synchronise(where.device)
        started = time.perf_counter()
        for i in range(0, len(rasters), batch_size):
            predictor.logits(rasters[i : i + batch_size])
        synchronise(where.device)
        rates.append(len(rasters) / (time.perf_counter() - started))
    return rates[1:]  # the first warms up


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--images", type=int, default=256)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--profile", default="cpu", help="whose augmentation and model; all of the network is trained")
    made.add_argument("--model", default="efficientnet_lite0")
    made.add_argument("--size", type=int, default=224, help="pixels")
    made.add_argument("--compile", default="auto", help="auto | true | false")
    given = made.parse_args()
    quiet()
    where = devices.pick(given.device)
    devices.prepare(0, deterministic=False)
    manifest = real_images(given.images, 64)
    with empty_cache() as folder:
        keys = {"model.name": given.model, "model.weights": "none", "model.input_size": given.size, "cache.dir": folder,
                "finetune.batch_size": given.batch_size, "finetune.compile": given.compile,
                "finetune.stages": "[]"}  # fmt: skip
        chosen = settings(keys, given.profile)
        network = build(chosen.model, manifest.classes, seed=0)
        real = set_up(network, manifest, chosen.finetune, unfreeze="all", device=where, seed=0, cache=chosen.cache)
        still = replace(real, train=Fixed(real.train))

        def rate(training: Training) -> float:
            synchronise(where.device)
            started = time.perf_counter()
            one_pass(training)
            synchronise(where.device)
            return training.train.images / (time.perf_counter() - started)

        started = time.perf_counter()
        rate(still), rate(real)
        warm = time.perf_counter() - started
        pairs = [(rate(real), rate(still)) for _ in range(given.rounds)]
        peak = torch.cuda.max_memory_allocated() if where.device.type == "cuda" else 0
        rasters = real.train.dataset.rasters(np.arange(min(given.images, 256)))[:, : given.size, : given.size]
        served = inference(network, np.ascontiguousarray(rasters), given.batch_size, where, given.rounds)
    ratio = median(looped / fixed for looped, fixed in pairs)
    rows = [
        ("model", f"{given.model}, {given.size} pixels, all of it trained, batch {given.batch_size}"),
        ("images", f"{given.images}, augmented as by the profile {given.profile}, from the disk cache"),
        ("computation", f"{where}, compile={given.compile}"),
        ("first two epochs (warm-up, compiling)", f"{warm:.1f} s"),
        ("real loop", f"{median(looped for looped, _ in pairs):.1f} images/s"),
        ("one fixed batch", f"{median(fixed for _, fixed in pairs):.1f} images/s"),
        ("ratio", f"{ratio:.3f} (median of {given.rounds} pairs)"),
        ("inference, float32", f"{median(served):.1f} images/s"),
    ]
    rows += [("peak memory on the GPU", f"{peak / 1e9:.2f} GB")] if peak else []
    report(given, "The real loop against one fixed batch", rows,
           {"ratio": ratio, "pairs": pairs, "inference": served, "warm_seconds": warm, "peak_bytes": peak})  # fmt: skip


if __name__ == "__main__":
    main()
