"""Does training wait for its images? The real loop against the same step on one batch that is in memory already:
`python -m bench.input --images 256 --rounds 5`."""

import time
from statistics import median

import torch
from torch import nn

from bench.common import empty_cache, parser, quiet, real_images, report, settings, synchronise
from cxr.loading.build import build_loaders
from cxr.models import device as devices
from cxr.models import speedups
from cxr.models.build import build
from cxr.models.freezing import split_network
from cxr.settings import instantiate
from cxr.training.loop import Training, set_train_mode
from cxr.training.setup import build_optimizer


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
        loss = t.loss(t.logits(x), y)
        t.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        t.optimizer.step()


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--images", type=int, default=256)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--model", default="efficientnet_lite0")
    made.add_argument("--size", type=int, default=224, help="pixels")
    made.add_argument("--compile", default="auto")
    given = made.parse_args()
    quiet()
    where = devices.pick(given.device)
    devices.prepare(0, deterministic=False)
    manifest = real_images(given.images, 16)
    with empty_cache() as folder:
        keys = {"model.name": given.model, "model.weights": "none", "model.input_size": given.size, "cache.dir": folder,
                "train.batch_size": given.batch_size, "train.compile": given.compile,
                "train.augment.crop_scale": "[0.8, 1.0]", "train.augment.rotate": 5, "train.augment.contrast": 0.2,
                "train.epochs": 100}  # fmt: skip
        chosen = settings(keys)
        network = build(chosen.model, manifest.classes, seed=0)
        network.module.to(where.device, memory_format=torch.channels_last)
        prefix, suffix = split_network(network, "all")
        suffix.requires_grad_(True)
        speedups.for_training(suffix, where.device)
        loaders = build_loaders(
            network, manifest, chosen.train, chosen.cache, prefix=prefix, unfreeze="all", device=where, seed=0
        )
        if given.compile == "true" or (given.compile == "auto" and where.device.type == "cuda"):
            suffix.compile()
        fixed = Fixed(loaders.train)
        training = Training(
            prefix=nn.Identity(), suffix=suffix, train=loaders.train, val=loaders.val,
            loss=instantiate.loss(chosen.train.loss, None), val_loss=instantiate.loss(chosen.train.loss, None),
            metric=instantiate.metric(chosen.train.metric, 3),
            optimizer=build_optimizer(chosen.train, list(suffix.parameters()), where), scheduler=None,
            settings=chosen.train, device=where, seed=0, fingerprint={},
        )  # fmt: skip

        def rate(batches) -> float:
            training.train = batches
            synchronise(where.device)
            started = time.perf_counter()
            one_pass(training)
            synchronise(where.device)
            return batches.images / (time.perf_counter() - started)

        rate(fixed), rate(loaders.train)  # warm-up
        pairs = [(rate(loaders.train), rate(fixed)) for _ in range(given.rounds)]
    ratio = median(real / still for real, still in pairs)
    peak = torch.cuda.max_memory_allocated() if where.device.type == "cuda" else 0
    rows = [
        ("model", f"{given.model}, {given.size} pixels, all of it trained, batch {given.batch_size}"),
        ("images", f"{given.images}, augmented, from the disk cache"),
        ("real loop", f"{median(real for real, _ in pairs):.1f} images/s"),
        ("one fixed batch", f"{median(still for _, still in pairs):.1f} images/s"),
        ("ratio", f"{ratio:.3f} (median of {given.rounds} pairs)"),
    ]
    rows += [("peak memory on the GPU", f"{peak / 1e9:.2f} GB")] if peak else []
    report(given, "The real loop against one fixed batch", rows, {"ratio": ratio, "pairs": pairs, "peak_bytes": peak})


if __name__ == "__main__":
    main()
