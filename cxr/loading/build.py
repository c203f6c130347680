"""Chooses what a training reads: images or cached features, whichever is faster and fits the disk."""

from dataclasses import dataclass

from torch import nn

from cxr.datasets.manifest import Manifest
from cxr.loading.augment import Augment, raster_spec
from cxr.loading.batches import ImageLoader, Loader
from cxr.loading.disk_cache import DiskCache
from cxr.loading.feature_cache import FeatureLoader, FeatureRequest, open_features
from cxr.loading.rasters import LazyDataset
from cxr.models.build import Network
from cxr.models.device import Device
from cxr.settings.schema import CacheSettings, TrainingSettings


@dataclass(frozen=True)
class Loaders:
    """Loaders of the training and validation splits, and what is left to run in front of the suffix."""

    train: Loader
    val: Loader
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
) -> Loaders:
    """Loaders of the manifest's training and validation splits; `cache=None` keeps nothing on disk.

    `prefix` is the frozen half of the network; with cached features nothing of it is left to run.
    """
    decoded = open_cache(cache)
    splits = {name: manifest.split(name) for name in ("train", "val")}
    train, val = (
        _image_loader(network, splits[name], settings, decoded, device, seed, training=name == "train")
        for name in splits
    )
    if cache is None or not cache.features or isinstance(prefix, nn.Identity):
        return Loaders(train, val, prefix)
    views = cached_views(settings, cache, unfreeze)
    features = open_features(
        [
            FeatureRequest(splits["train"], train, network, prefix, unfreeze, device, views),
            FeatureRequest(splits["val"], val, network, prefix, unfreeze, device, 1),
        ],
        DiskCache(cache.dir, cache.max_gb),
    )
    if features is None:
        return Loaders(train, val, prefix)
    size = settings.batch_size
    return Loaders(
        FeatureLoader(features[0], train.dataset.labels, batch_size=size, device=device, seed=seed, views=views),
        FeatureLoader(features[1], val.dataset.labels, batch_size=size, device=device, seed=None),
        nn.Identity(),
    )


def cached_views(settings: TrainingSettings, cache: CacheSettings | None, unfreeze: int | str) -> int:
    """Cached views of each training image; 0 where every epoch draws its own."""
    if cache is None or not cache.features or unfreeze == "all":
        return 0
    return 1 if settings.augment.off else cache.views


def _image_loader(
    network: Network,
    split: Manifest,
    settings: TrainingSettings,
    cache: DiskCache | None,
    device: Device,
    seed: int,
    *,
    training: bool,
) -> ImageLoader:
    augment, spec = None, network.spec
    if training and not settings.augment.off:
        augment, spec = Augment(settings.augment, spec.size), raster_spec(spec, settings.augment)
    return ImageLoader(
        LazyDataset(split, spec, cache),
        network.spec,
        batch_size=settings.batch_size,
        device=device.device,
        seed=seed,
        shuffle=training,
        augment=augment,
        workers=settings.workers,
    )
