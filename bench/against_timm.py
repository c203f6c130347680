"""An epoch of full training by timm and by us: the same network, the same real images, the same batches and precision.

    python -m bench.against_timm --images 1024 --rounds 5

timm's way is that of its `train.py` (not in its wheel): its data set, loader, optimizer and the steps of its
`train_one_epoch`, with `--amp --amp-dtype bfloat16 --channels-last` and cross entropy. Ours reads the raster cache that
its first epoch has filled. The first epoch of both is not counted; then they take turns."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from timm.data import create_dataset, create_loader, resolve_model_data_config
from timm.optim import create_optimizer_v2
from torch import nn

from bench.common import empty_cache, parser, quiet, real_images, report, settings, synchronise
from bench.input import one_pass
from cxr.common.hardware import cores
from cxr.datasets.manifest import Manifest
from cxr.models import device as devices
from cxr.models.build import build
from cxr.models.device import Device
from cxr.training.setup import set_up

# The augmentation that timm's train.py has by default, and the same in our settings.
AUGMENTED = {
    "crop_scale": "[0.08, 1.0]", "aspect": 0.33, "flip": "true", "brightness": 0.4, "contrast": 0.4,
}  # fmt: skip


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--images", type=int, default=1024, help="training images")
    made.add_argument("--rounds", type=int, default=5, help="epochs of each that are counted")
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--model", default="tf_efficientnet_lite0", help="name in timm, e.g. resnet50")
    made.add_argument("--size", type=int, default=224, help="pixels")
    made.add_argument("--precision", default="bfloat16", help="bfloat16 | float32")
    made.add_argument("--workers", type=int, default=cores(), help="processes that read images for timm")
    made.add_argument("--augmented", action="store_true", help="random crops, flips and tones, as timm's default")
    given = made.parse_args()
    quiet()
    where = devices.pick(given.device, given.precision)
    devices.prepare(0, deterministic=False)
    manifest = real_images(given.images, 16)
    with empty_cache() as folder:
        ways = {
            "timm": of_timm(given, manifest, Path(folder) / "images", where),
            "ours": of_ours(given, manifest, Path(folder) / "cache", where),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(given.rounds + 1):
            for name, epoch in ways.items():
                synchronise(where.device)
                started = time.perf_counter()
                images = epoch()
                synchronise(where.device)
                if number:
                    rates[name].append(images / (time.perf_counter() - started))
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["timm"], strict=True)]
    words = {name: f"{median(found):.1f} ({min(found):.1f} to {max(found):.1f})" for name, found in rates.items()}
    rows = [
        ("network", f"{given.model} of timm, {given.size} pixels, batches of {given.batch_size}, {where}"),
        (
            "images",
            f"{given.images}, {'augmented' if given.augmented else 'as they are'}; epochs 2 to {given.rounds + 1}",
        ),
        (f"timm {timm.__version__}, {given.workers} workers", f"{words['timm']} images/s"),
        ("ours", f"{words['ours']} images/s"),
        ("ratio", f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"),
    ]
    report(given, "An epoch of training by timm and by us", rows, {"ratio": median(ratios), **rates})


def of_timm(given: argparse.Namespace, manifest: Manifest, folder: Path, where: Device) -> Callable[[], int]:
    """An epoch as timm's train.py takes it; gives the number of images."""
    part = manifest.split("train")
    for file, label in zip(part.files(), part.rows["label"], strict=True):
        link = folder / label / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
    model = timm.create_model(given.model, num_classes=len(manifest.classes))
    config = resolve_model_data_config(model)
    model = model.to(where.device).to(memory_format=torch.channels_last)
    plain: dict[str, Any] = {} if given.augmented else {"no_aug": True}
    loader = create_loader(
        create_dataset("", root=str(folder), is_training=True),
        input_size=(3, given.size, given.size),
        batch_size=given.batch_size,
        is_training=True,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        num_workers=given.workers,
        device=where.device,
        **plain,
    )
    optimizer = create_optimizer_v2(model, opt="adam", lr=1e-4, weight_decay=0.0)
    loss_of = nn.CrossEntropyLoss().to(where.device)

    def epoch() -> int:
        images = 0
        model.train()
        optimizer.zero_grad()
        for x, y in loader:
            with where.autocast():
                loss = loss_of(model(x.contiguous(memory_format=torch.channels_last)), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            images += len(y)
        return images

    return epoch


def of_ours(given: argparse.Namespace, manifest: Manifest, folder: Path, where: Device) -> Callable[[], int]:
    """An epoch of our loop on the same network; gives the number of images."""
    keys: dict[str, object] = {"batch_size": given.batch_size, "batch_norm": "trained", "class_weights": "none"}
    keys |= {"optimizer.lr": 1e-4}
    if given.augmented:
        keys |= {f"augment.{name}": value for name, value in AUGMENTED.items()}
    model = {"name": f"timm/{given.model}", "weights": "none", "input_size": given.size}
    chosen = settings(
        {f"finetune.{name}": value for name, value in keys.items()}
        | {f"model.{name}": value for name, value in model.items()}
        | {"cache.dir": folder}
    )
    network = build(chosen.model, manifest.classes, seed=0)
    training = set_up(network, manifest, chosen.finetune, unfreeze="all", device=where, seed=0, cache=chosen.cache)

    def epoch() -> int:
        one_pass(training)
        return training.train.images

    return epoch


if __name__ == "__main__":
    main()
