"""From a network, a manifest and settings to an engine run: batches, loss, metric, optimizer, scheduler."""

import hashlib
import inspect
import json
import logging

import torch
from torch import nn

from cxr.datasets.manifest import Manifest
from cxr.loading.batches import class_weights
from cxr.loading.build import Feed, feed, views_of
from cxr.loading.feature_cache import FeatureLoader
from cxr.models import speedups
from cxr.models.build import Network
from cxr.models.device import Device
from cxr.models.freezing import folded, split_at
from cxr.settings import instantiate
from cxr.settings.schema import CacheSettings, TrainingSettings
from cxr.training.loop import Callbacks, FitResult, State, Training, fit

log = logging.getLogger("cxr.training.setup")

# Images in all epochs from which compiling (a minute or two) is taken to be won back; not measured yet.
_PAYS_FROM = 50_000


def fit_network(
    network: Network,
    manifest: Manifest,
    settings: TrainingSettings,
    *,
    unfreeze: int | str,
    device: Device,
    seed: int,
    resume: State | None = None,
    callbacks: Callbacks | None = None,
    cache: CacheSettings | None = None,
) -> FitResult:
    """Train the last `unfreeze` blocks and the head (0: the head alone); `network` ends with the best weights.

    `cache` says what may be kept on disk between epochs and runs; None: nothing.
    """
    weight = class_weights(manifest.split("train")).to(device.device) if settings.class_weights == "balanced" else None
    network.module.to(device.device, memory_format=torch.channels_last)
    prefix, suffix = split_at(network, unfreeze)
    prefix = prefix if isinstance(prefix, nn.Identity) else folded(prefix)
    suffix.requires_grad_(True)
    speedups.for_training(suffix, device.device)
    parameters = [p for p in suffix.parameters() if p.requires_grad]
    log.info(
        "training %s of %s parameters of %s on %s",
        f"{sum(p.numel() for p in parameters):,}",
        f"{sum(p.numel() for p in network.module.parameters()):,}",
        network.name,
        device,
    )
    optimizer = build_optimizer(settings, parameters, device)
    scheduler = None
    if settings.scheduler is not None:
        scheduler = instantiate.build(settings.scheduler, optimizer, kind=torch.optim.lr_scheduler.LRScheduler)
    fed = feed(network, manifest, settings, cache, prefix=prefix, unfreeze=unfreeze, device=device, seed=seed)
    _compile(settings, fed, suffix, device)
    training = Training(
        prefix=fed.prefix,
        suffix=suffix,
        train=fed.train,
        val=fed.val,
        loss=instantiate.loss(settings.loss, weight).to(device.device),
        val_loss=instantiate.loss(settings.loss, None).to(device.device),
        metric=instantiate.metric(settings.metric, len(network.classes)).to(device.device),
        optimizer=optimizer,
        scheduler=scheduler,
        settings=settings,
        device=device,
        seed=seed,
        fingerprint=_fingerprint(network, manifest, settings, unfreeze, seed)
        | {"views": str(views_of(settings, cache, unfreeze) if not settings.augment.off else 0)},
        callbacks=callbacks or Callbacks(),
    )
    return fit(training, resume)


def _compile(settings: TrainingSettings, fed: Feed, suffix: nn.Module, device: Device) -> None:
    """Compile what runs in every step, in place, so that the names of weights stay as they are."""
    wish = settings.compile
    if wish == "auto":
        whole = settings.epochs * fed.train.images
        wish = device.device.type == "cuda" and whole >= _PAYS_FROM and not isinstance(fed.train, FeatureLoader)
    if wish:
        log.info("compiling; the first steps of training and of validation take longer for it")
        for half in (fed.prefix, suffix):
            if not isinstance(half, nn.Identity):
                half.compile()


def build_optimizer(settings: TrainingSettings, parameters: list, device: Device) -> torch.optim.Optimizer:
    """The optimizer, fused into one kernel where its class can be and the settings do not say otherwise."""
    target, extra = settings.optimizer, {}
    given = target.arguments
    if "fused" in inspect.signature(instantiate.resolve(target)).parameters and not {"fused", "foreach"} & set(given):
        extra["fused"] = device.device.type in ("cuda", "cpu")
    return instantiate.build(target, parameters, kind=torch.optim.Optimizer, **extra)


def _fingerprint(
    network: Network, manifest: Manifest, settings: TrainingSettings, unfreeze: int | str, seed: int
) -> dict:
    """What must be the same for a checkpoint to be gone on with."""
    idle = {"workers", "checkpoint_interval", "compile"}
    values = {k: v for k, v in settings.model_dump(by_alias=True).items() if k not in idle}
    return {
        "model": network.name,
        "classes": ",".join(network.classes),
        "unfreeze": str(unfreeze),
        "seed": str(seed),
        "manifest": manifest.digest,
        "settings": hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16],
    }
