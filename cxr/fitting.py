"""From a network, a manifest and settings to an engine run: batches, loss, metric, optimizer, scheduler."""

import hashlib
import inspect
import json
import logging

import torch

from cxr import targets
from cxr.augment import Augment, raster
from cxr.boundary import split_at
from cxr.config import FitSettings
from cxr.data import ImageBatches, ImageDataset, class_weights
from cxr.device import Device
from cxr.engine import Callbacks, FitResult, State, Training, fit
from cxr.manifest import Manifest
from cxr.model import Network

log = logging.getLogger("cxr.fitting")


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
) -> FitResult:
    """Train the last `unfreeze` blocks and the head (0: the head alone); `network` ends with the best weights."""
    train, val = manifest.part("train"), manifest.part("val")
    weight = class_weights(train).to(device.device) if settings.class_weights == "balanced" else None
    network.module.to(device.device, memory_format=torch.channels_last)
    prefix, suffix = split_at(network, unfreeze)
    suffix.requires_grad_(True)
    parameters = [p for p in suffix.parameters() if p.requires_grad]
    log.info(
        "training %s of %s parameters of %s on %s",
        f"{sum(p.numel() for p in parameters):,}",
        f"{sum(p.numel() for p in network.module.parameters()):,}",
        network.name,
        device,
    )
    optimizer = _optimizer(settings, parameters, device)
    scheduler = None
    if settings.scheduler is not None:
        scheduler = targets.build(settings.scheduler, optimizer, kind=torch.optim.lr_scheduler.LRScheduler)
    training = Training(
        prefix=prefix,
        suffix=suffix,
        train=_batches(network, train, settings, device, seed, training=True),
        val=_batches(network, val, settings, device, seed, training=False),
        loss=targets.loss(settings.loss, weight).to(device.device),
        val_loss=targets.loss(settings.loss, None).to(device.device),
        metric=targets.metric(settings.metric, len(network.classes)).to(device.device),
        optimizer=optimizer,
        scheduler=scheduler,
        settings=settings,
        device=device,
        seed=seed,
        fingerprint=_fingerprint(network, manifest, settings, unfreeze, seed),
        callbacks=callbacks or Callbacks(),
    )
    return fit(training, resume)


def _batches(
    network: Network, part: Manifest, settings: FitSettings, device: Device, seed: int, *, training: bool
) -> ImageBatches:
    augment = None
    spec = network.spec
    if training and not settings.augment.off:
        augment, spec = Augment(settings.augment, spec.size), raster(spec, settings.augment)
    return ImageBatches(
        ImageDataset(part, spec),
        network.spec,
        batch_size=settings.batch_size,
        device=device.device,
        seed=seed,
        shuffle=training,
        augment=augment,
        workers=settings.workers,
    )


def _optimizer(settings: FitSettings, parameters: list, device: Device) -> torch.optim.Optimizer:
    """The optimizer, fused into one kernel where its class can be and the settings do not say otherwise."""
    target, extra = settings.optimizer, {}
    given = target.arguments
    if "fused" in inspect.signature(targets.resolve(target)).parameters and not {"fused", "foreach"} & set(given):
        extra["fused"] = device.device.type in ("cuda", "cpu")
    return targets.build(target, parameters, kind=torch.optim.Optimizer, **extra)


def _fingerprint(network: Network, manifest: Manifest, settings: FitSettings, unfreeze: int | str, seed: int) -> dict:
    """What must be the same for a checkpoint to be gone on with."""
    idle = {"workers", "checkpoint_interval"}
    values = {k: v for k, v in settings.model_dump(by_alias=True).items() if k not in idle}
    return {
        "model": network.name,
        "classes": ",".join(network.classes),
        "unfreeze": str(unfreeze),
        "seed": str(seed),
        "manifest": manifest.digest,
        "settings": hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16],
    }
