"""Ours and the plain loop on the same images, the same weights and the same number of epochs; for `head` and
`finetune`."""

import argparse
import copy
import time

import torch

from bench import plain
from bench.common import empty_cache, parser, quiet, real_images, report, settings, synchronise
from cxr.models import device as devices
from cxr.models.build import Network, build
from cxr.models.freezing import blocks
from cxr.training.loop import train
from cxr.training.setup import set_up

WARM_UP = 16  # images that both ways see before the clock runs


def arguments(about: str, views: int) -> argparse.Namespace:
    made = parser(about)
    made.add_argument("--images", type=int, default=96, help="training images; a quarter as many validate")
    made.add_argument("--epochs", type=int, default=10)
    made.add_argument("--views", type=int, default=views, help="stored views; above 1 with augmentation")
    made.add_argument("--model", default="efficientnet_v2_s")
    made.add_argument("--weights", default="none", help="none (random) | imagenet | FILE.pth")
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--lr", type=float, default=1e-3)
    made.add_argument("--plain-epochs", type=int, help="run fewer of the plain loop and multiply")
    words = "batch norms of the frozen section in the plain loop: as they come, or in eval mode"
    made.add_argument("--plain-statistics", choices=("moving", "frozen"), default="moving", help=words)
    return made.parse_args()


def compare(given: argparse.Namespace, title: str, unfreeze: int) -> None:
    quiet()
    where = devices.pick(given.device)
    devices.prepare(0, deterministic=False)
    manifest = real_images(given.images, max(16, given.images // 4))
    network = _network(given, manifest)
    warm = _warm(manifest)
    ran = min(given.plain_epochs or given.epochs, given.epochs)
    _plain(given, copy.deepcopy(network), warm, unfreeze, 1, where)
    theirs = _plain(given, copy.deepcopy(network), manifest, unfreeze, ran, where)
    plain_seconds = sum(theirs.seconds) / ran * given.epochs
    _ours(given, copy.deepcopy(network), warm, unfreeze, where)
    seconds, score = _ours(given, copy.deepcopy(network), manifest, unfreeze, where)
    ratio = plain_seconds / seconds
    section = "" if ran == given.epochs else f" ({ran} epochs run, the rest multiplied)"
    rows = [
        ("model", f"{given.model}, {network.spec.size} pixels, weights {given.weights}"),
        ("images", f"{given.images} training, {len(manifest.split('val'))} validation, {given.epochs} epochs"),
        ("views", str(given.views) + (" (exact)" if given.views == 1 else ", augmented")),
        ("plain loop", f"{plain_seconds:.1f} s{section}"),
        (f"ours, {where}, cache cold", f"{seconds:.1f} s"),
        ("ratio", f"{ratio:.1f}"),
        (
            "validation macro-F1, plain / ours",
            f"{theirs.score:.4f} / {score:.4f} (plain statistics {given.plain_statistics})",
        ),
    ]
    report(given, title, rows, {
        "ratio": ratio, "plain_seconds": plain_seconds, "plain_epochs_run": ran, "seconds": seconds,
        "plain_score": theirs.score, "score": score, "images": given.images, "epochs": given.epochs,
        "views": given.views, "model": given.model, "plain_epoch_seconds": theirs.seconds,
    })  # fmt: skip


def _network(given: argparse.Namespace, manifest) -> Network:
    chosen = settings({"model.name": given.model, "model.weights": given.weights}).model
    return build(chosen, manifest.classes, seed=0)


def _warm(manifest):
    rows = manifest.rows.groupby("split").head(WARM_UP)
    return type(manifest)(rows.reset_index(drop=True), manifest.root, manifest.classes)


def _plain(given, network: Network, manifest, unfreeze: int, epochs: int, where) -> plain.Outcome:
    module = network.module
    trained = [module.get_submodule(network.head)]
    trained += [module.get_submodule(name) for name in (blocks(network)[-unfreeze:] if unfreeze else [])]
    return plain.train(network, manifest, trained, epochs=epochs, batch_size=given.batch_size, lr=given.lr,
                       device=where.device, frozen_statistics=given.plain_statistics == "frozen")  # fmt: skip


def _ours(given, network: Network, manifest, unfreeze: int, where) -> tuple[float, float]:
    keys = {"epochs": given.epochs, "batch_size": given.batch_size, "patience": given.epochs}
    keys |= {"optimizer.lr": given.lr}
    if given.views > 1:
        keys |= {"augment.crop_scale": "[0.8, 1.0]", "augment.rotate": 5, "augment.contrast": 0.2}
    with empty_cache() as folder:
        section = "finetune" if unfreeze else "train"
        keys = {f"{section}.{name}": value for name, value in keys.items()}
        chosen = settings({**keys, "cache.dir": folder, "cache.views": given.views})
        synchronise(where.device)
        started = time.perf_counter()
        result = train(
            set_up(
                network,
                manifest,
                getattr(chosen, section),
                unfreeze=unfreeze,
                device=where,
                seed=0,
                cache=chosen.cache,
            )
        )
        synchronise(where.device)
        seconds = time.perf_counter() - started
    torch.use_deterministic_algorithms(False)
    return seconds, result.best.val_metric
