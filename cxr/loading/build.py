"""Chooses what a training reads: images or cached features, whichever is faster and fits the disk."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from cxr.common.share import ALONE, WHOLE, Crew, Share
from cxr.datasets.manifest import Manifest
from cxr.imaging.preprocess import InputSpec
from cxr.loading.augment import Augment, raster_spec
from cxr.loading.batches import ImageLoader, Loader
from cxr.loading.changes import CHANGES, UNCHANGED, ChangedDataset, whole_patients
from cxr.loading.disk_cache import DiskCache
from cxr.loading.feature_cache import FeatureLoader, FeatureRequest, open_features
from cxr.loading.mixing import Mixing
from cxr.loading.rasters import LazyDataset
from cxr.loading.stages import StagedLoader, last_epochs
from cxr.models.build import Network
from cxr.models.device import Device
from cxr.settings.agreement import cached_views
from cxr.settings.augment import AugmentSettings
from cxr.settings.schema import CacheSettings, TrainingSettings


@dataclass(frozen=True)
class Loaders:
    """Loaders of the training and validation splits, and what is left to run in front of the suffix.

    `val_changed` has validation images under each of the changes that choose the epoch with `select=robust`.
    """

    train: Loader
    val: Loader
    val_changed: list[Loader]
    prefix: nn.Module


def open_cache(settings: CacheSettings | None) -> DiskCache | None:
    """The disk cache of decoded images; None where the settings keep none."""
    if settings is None or not settings.decoded:
        return None
    return DiskCache(settings.dir, settings.max_gb)


def build_loaders(
    network: Network,
    manifest: Manifest,
    settings: TrainingSettings,
    cache: CacheSettings | None,
    *,
    prefix: nn.Module,
    unfreeze: int | str,
    device: Device,
    seed: int,
    share: Share = WHOLE,
    crew: Crew = ALONE,
) -> Loaders:
    """Loaders of the manifest's training and validation splits; `cache=None` keeps nothing on disk.

    `prefix` is the frozen half of the network; with cached features nothing of it is left to run. Of several
    processes, each reads its `share` of every batch; those of a machine, its `crew`, compute the features together,
    while one of them decodes the images and the others wait.
    """
    decoded = open_cache(cache)
    train, val = manifest.split("train"), manifest.split("val")
    common: dict[str, Any] = {
        "device": device.device,
        "batch_size": settings.batch_size,
        "seed": seed,
        "workers": settings.workers,
        "share": share,
    }
    val_images = ImageLoader(LazyDataset(val, network.spec, decoded), network.spec, **common)
    rows = whole_patients(val, seed, settings.select_images)
    changed = _changed(val_images, rows, network.spec, common) if settings.select == "robust" else {}
    views = cached_views(settings, cache, unfreeze)
    if cache is None or not views or isinstance(prefix, nn.Identity):
        staged = _staged(network, train, settings, decoded, common)
        return Loaders(staged, val_images, list(changed.values()), prefix)
    train_images = _training_loader(network, train, settings, decoded, common, settings.augment, network.spec)
    some = replace(val, rows=val.rows.iloc[rows])
    frozen: dict[str, Any] = {"network": network, "prefix": prefix, "unfreeze": unfreeze, "device": device}
    features = open_features(
        [
            FeatureRequest(train, train_images, views=views, **frozen),
            FeatureRequest(val, val_images, views=1, **frozen),
            *(FeatureRequest(some, images, views=1, change=name, **frozen) for name, images in changed.items()),
        ],
        DiskCache(cache.dir, cache.max_gb),
        crew,
    )
    if features is None:
        return Loaders(train_images, val_images, list(changed.values()), prefix)
    size = settings.batch_size
    ordered: dict[str, Any] = {"batch_size": size, "device": device, "seed": None, "share": share}
    return Loaders(
        FeatureLoader(
            features[0],
            train_images.dataset.labels,
            batch_size=size,
            device=device,
            seed=seed,
            views=views,
            sampler=settings.sampler,
            share=share,
        ),
        FeatureLoader(features[1], val_images.dataset.labels, **ordered),
        [
            FeatureLoader(array, images.dataset.labels, **ordered)
            for array, images in zip(features[2:], changed.values(), strict=True)
        ],
        nn.Identity(),
    )


def _changed(val: ImageLoader, rows: np.ndarray, spec: InputSpec, common: dict[str, Any]) -> dict[str, ImageLoader]:
    """Loaders of some validation images under every change, by its name."""
    changes = {name: change for name, change in CHANGES.items() if name != UNCHANGED}
    return {
        name: ImageLoader(ChangedDataset(val.dataset, rows, change), spec, **common) for name, change in changes.items()
    }


def _staged(
    network: Network, split: Manifest, settings: TrainingSettings, cache: DiskCache | None, common: dict[str, Any]
) -> Loader:
    """The training loader: one, or one for each stage."""
    if not settings.stages:
        return _training_loader(network, split, settings, cache, common, settings.augment, network.spec)
    loaders: list[Loader] = []
    for stage in settings.stages:
        augment, spec = settings.augment.scaled(stage.strength), network.spec.scaled(stage.size)
        loaders.append(_training_loader(network, split, settings, cache, common, augment, spec))
    ends = last_epochs(settings.stages, settings.epochs)
    return StagedLoader(loaders, ends, [stage.strength for stage in settings.stages])


def _training_loader(
    network: Network,
    split: Manifest,
    settings: TrainingSettings,
    cache: DiskCache | None,
    common: dict[str, Any],
    augment: AugmentSettings,
    spec: InputSpec,
) -> ImageLoader:
    """Batches of views of the training images at the size of `spec`."""
    views = None if augment.off else Augment(augment, spec.size)
    rasters = spec if augment.off else raster_spec(spec, augment)
    return ImageLoader(
        LazyDataset(split, rasters, cache),
        spec,
        shuffle=True,
        sampler=settings.sampler,
        augment=views,
        mixing=Mixing(augment, len(network.classes)) if augment.mixes else None,
        **common,
    )
