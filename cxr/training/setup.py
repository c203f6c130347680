"""From a network, a manifest and settings to a `Training`: loaders, loss, metric, optimizer, scheduler."""

import hashlib
import json
import logging

import torch
from torch import nn

from cxr.datasets.manifest import Manifest
from cxr.loading.batches import loss_weights
from cxr.loading.build import Loaders, build_loaders
from cxr.loading.feature_cache import FeatureLoader
from cxr.loading.stages import StagedLoader
from cxr.models import speedups
from cxr.models.build import Network
from cxr.models.device import Device
from cxr.models.freezing import fold_batch_norms, split_network
from cxr.settings import instantiate
from cxr.settings.schema import CacheSettings, TrainingSettings
from cxr.training import averaging, resuming, suitability, trials
from cxr.training.distributed import Processes
from cxr.training.loop import Callbacks, Training
from cxr.training.optimisation import Schedule, build_optimizer

log = logging.getLogger(__name__)

# Images over all epochs above which compiling (a minute or two) is assumed to pay off; not measured yet.
_COMPILE_FROM = 50_000


def set_up(
    network: Network,
    manifest: Manifest,
    settings: TrainingSettings,
    *,
    unfreeze: int | str,
    device: Device,
    seed: int,
    callbacks: Callbacks | None = None,
    cache: CacheSettings | None = None,
    processes: Processes | None = None,
) -> Training:
    """Set up a training of the head and the last `unfreeze` blocks (0: the head alone) of `network`.

    `cache` says what may be kept on disk between epochs and runs; None keeps nothing. `processes` are those that train
    together; None: this one alone.

    Raises:
        CxrError: the network cannot be cut there or cannot take images of a stage, or a class in the settings cannot be
            built.
    """
    processes = processes or Processes()
    trials.check(settings, len(network.classes))
    weight = loss_weights(manifest.split("train"), settings)
    prefix, suffix, dropouts = _halves(network, settings, unfreeze, device)
    optimizer = build_optimizer(settings, network, suffix, device)
    loaders = build_loaders(
        network,
        manifest,
        settings,
        cache,
        prefix=prefix,
        unfreeze=unfreeze,
        device=device,
        seed=seed,
        share=processes.share,
        crew=processes.machine,
    )
    if isinstance(loaders.train, StagedLoader):
        loaders.train.control(dropouts)
    averaged = averaging.averaged(suffix, settings.ema)
    _compile(settings, loaders, suffix, device, processes)
    metric = instantiate.metric(settings.metric, len(network.classes)).to(device.device)
    metric.distributed_available_fn = _never  # it is given the images of all processes, and would add them up again
    return Training(
        prefix=loaders.prefix,
        suffix=suffix,
        averaged=averaged,
        train=loaders.train,
        val=loaders.val,
        val_changed=loaders.val_changed,
        loss=instantiate.loss(settings.loss, weight).to(device.device),
        val_loss=instantiate.loss(settings.loss, None).to(device.device),
        metric=metric,
        optimizer=optimizer,
        schedule=Schedule(settings, optimizer, len(loaders.train)),
        settings=settings,
        device=device,
        seed=seed,
        fingerprint=_fingerprint(network, manifest, settings, loaders, unfreeze, seed),
        callbacks=callbacks or Callbacks(),
        processes=processes,
    )


def _halves(
    network: Network, settings: TrainingSettings, unfreeze: int | str, device: Device
) -> tuple[nn.Module, nn.Module, list[nn.Dropout]]:
    """The frozen and the trained half of the network, and the dropout before its head, as `settings` have it."""
    network.module.to(device.device).to(memory_format=torch.channels_last)
    suitability.check_stages(network, settings)
    dropouts = suitability.dropouts(network, settings)
    if settings.dropout is not None:
        for layer in dropouts:
            layer.p = settings.dropout
    prefix, suffix = split_network(network, unfreeze)
    prefix = prefix if isinstance(prefix, nn.Identity) else fold_batch_norms(prefix)
    suffix.requires_grad_(True)
    speedups.for_training(suffix)
    parameters = [p for p in suffix.parameters() if p.requires_grad]
    log.info(
        "training %s of %s parameters of %s on %s",
        f"{sum(p.numel() for p in parameters):,}",
        f"{sum(p.numel() for p in network.module.parameters()):,}",
        network.name,
        device,
    )
    return prefix, suffix, dropouts


def _compile(
    settings: TrainingSettings, loaders: Loaders, suffix: nn.Module, device: Device, processes: Processes
) -> None:
    """Compile what runs in every step, in place, so that the names of weights stay as they are.

    With several processes the suffix is left as it is: compiled, its functions could not be intercepted (see
    `cxr.training.whole_batch`).
    """
    if settings.compile == "auto":
        images = settings.epochs * loaders.train.images
        from_images = not isinstance(loaders.train, FeatureLoader)
        wanted = device.device.type == "cuda" and images >= _COMPILE_FROM and from_images
    else:
        wanted = settings.compile
    if wanted:
        log.info("compiling; the first steps of training and of validation take longer")
        for half in (loaders.prefix,) if processes.share.several else (loaders.prefix, suffix):
            if not isinstance(half, nn.Identity):
                half.compile()


def _fingerprint(
    network: Network,
    manifest: Manifest,
    settings: TrainingSettings,
    loaders: Loaders,
    unfreeze: int | str,
    seed: int,
) -> dict[str, str]:
    """What must be the same for a training to resume from a checkpoint."""
    values = resuming.decisive(settings)
    # Of the loader, not of the settings: features beyond `cache.max_gb` are not cached.
    views = loaders.train.views if isinstance(loaders.train, FeatureLoader) else 0
    return {
        "model": network.name,
        "classes": ",".join(network.classes),
        "unfreeze": str(unfreeze),
        "seed": str(seed),
        "manifest": manifest.digest,
        "settings": hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16],
        "views": str(0 if settings.augment.off else views),
    }


def _never() -> bool:
    return False
