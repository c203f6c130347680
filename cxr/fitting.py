"""From a network, a manifest and settings to an engine run: batches, loss, metric, optimizer, scheduler."""

import hashlib
import inspect
import json
import logging

import torch
from torch import nn

from cxr import quicker, targets
from cxr.boundary import folded, split_at
from cxr.data import class_weights
from cxr.device import Device
from cxr.engine import Callbacks, FitResult, State, Training, fit
from cxr.features import FeatureBatches
from cxr.feeding import Feed, feed, views_of
from cxr.manifest import Manifest
from cxr.model import Network
from cxr.schema import CacheSettings, FitSettings

log = logging.getLogger("cxr.fitting")

# Images in all epochs from which compiling (a minute or two) is taken to be won back; not measured yet.
_PAYS_FROM = 50_000


def fit_network(
    network: Network,
    manifest: Manifest,
    settings: FitSettings,
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
    weight = class_weights(manifest.part("train")).to(device.device) if settings.class_weights == "balanced" else None
    network.module.to(device.device, memory_format=torch.channels_last)
    prefix, suffix = split_at(network, unfreeze)
    prefix = prefix if isinstance(prefix, nn.Identity) else folded(prefix)
    suffix.requires_grad_(True)
    quicker.for_training(suffix, device.device)
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
        scheduler = targets.build(settings.scheduler, optimizer, kind=torch.optim.lr_scheduler.LRScheduler)
    fed = feed(network, manifest, settings, cache, prefix=prefix, unfreeze=unfreeze, device=device, seed=seed)
    _compile(settings, fed, suffix, device)
    training = Training(
        prefix=fed.prefix,
        suffix=suffix,
        train=fed.train,
        val=fed.val,
        loss=targets.loss(settings.loss, weight).to(device.device),
        val_loss=targets.loss(settings.loss, None).to(device.device),
        metric=targets.metric(settings.metric, len(network.classes)).to(device.device),
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


def _compile(settings: FitSettings, fed: Feed, suffix: nn.Module, device: Device) -> None:
    """Compile what runs in every step, in place, so that the names of weights stay as they are."""
    wish = settings.compile
    if wish == "auto":
        whole = settings.epochs * fed.train.images
        wish = device.device.type == "cuda" and whole >= _PAYS_FROM and not isinstance(fed.train, FeatureBatches)
    if wish:
        log.info("compiling; the first steps of training and of validation take longer for it")
        for half in (fed.prefix, suffix):
            if not isinstance(half, nn.Identity):
                half.compile()


def build_optimizer(settings: FitSettings, parameters: list, device: Device) -> torch.optim.Optimizer:
    """The optimizer, fused into one kernel where its class can be and the settings do not say otherwise."""
    target, extra = settings.optimizer, {}
    given = target.arguments
    if "fused" in inspect.signature(targets.resolve(target)).parameters and not {"fused", "foreach"} & set(given):
        extra["fused"] = device.device.type in ("cuda", "cpu")
    return targets.build(target, parameters, kind=torch.optim.Optimizer, **extra)


def _fingerprint(network: Network, manifest: Manifest, settings: FitSettings, unfreeze: int | str, seed: int) -> dict:
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
