"""What a training reads: images or stored features, whichever is quicker and fits the disk."""

import logging
from dataclasses import dataclass
from threading import Lock

import torch
from torch import nn

from cxr.datasets.manifest import Manifest
from cxr.loading.augment import Augment, raster
from cxr.loading.batches import ImageLoader, Loader
from cxr.loading.disk_cache import DiskCache
from cxr.loading.feature_cache import FeatureLoader, Wanted, open_features
from cxr.loading.rasters import open_rasters
from cxr.models.build import Network
from cxr.models.device import Device
from cxr.settings.schema import CacheSettings, TrainingSettings

log = logging.getLogger("cxr.loading.build")


@dataclass(frozen=True)
class Feed:
    """Loader for training and validation, and what is left to run in front of the suffix for each of them."""

    train: Loader
    val: Loader
    prefix: nn.Module


def feed(
    network: Network, manifest: Manifest, settings: TrainingSettings, cache: CacheSettings | None, *,
    prefix: nn.Module, unfreeze: int | str, device: Device, seed: int,
) -> Feed:  # fmt: skip
    """Loader of the manifest's training and validation parts; `cache=None` keeps nothing on disk.

    `prefix` is the frozen half of the network: with stored features nothing of it is left to run.
    """
    stores = DiskCache(cache.dir, cache.max_gb) if cache is not None else None
    keeps_rasters = stores if cache is not None and cache.decoded else None
    parts = {name: manifest.split(name) for name in ("train", "val")}
    train, val = (
        _images(network, parts[name], settings, keeps_rasters, device, seed, training=name == "train") for name in parts
    )
    if stores is None or not cache.features or isinstance(prefix, nn.Identity):
        return Feed(train, val, prefix)
    views = views_of(settings, cache, unfreeze)
    asked = (network, prefix, unfreeze, device)
    found = open_features([Wanted(parts["train"], train, *asked, views), Wanted(parts["val"], val, *asked, 1)], stores)
    if found is None:
        return Feed(train, val, prefix)
    common = {"batch_size": settings.batch_size, "device": device}
    return Feed(
        FeatureLoader(found[0], train.dataset.labels, seed=seed, views=views, **common),
        FeatureLoader(found[1], val.dataset.labels, seed=None, **common),
        nn.Identity(),
    )


def views_of(settings: TrainingSettings, cache: CacheSettings | None, unfreeze: int | str) -> int:
    """Stored views of each training image; 0 where every epoch draws anew."""
    if cache is None or not cache.features or unfreeze == "all":
        return 0
    return 1 if settings.augment.off else cache.views


def _images(
    network: Network, part: Manifest, settings: TrainingSettings, stores: DiskCache | None, device: Device,
    seed: int, *,
    training: bool,
) -> ImageLoader:  # fmt: skip
    augment, spec = None, network.spec
    if training and not settings.augment.off:
        augment, spec = Augment(settings.augment, spec.size), raster(spec, settings.augment)
    return ImageLoader(
        _Later(part, spec, stores),
        network.spec,
        batch_size=settings.batch_size,
        device=device.device,
        seed=seed,
        shuffle=training,
        augment=augment,
        workers=settings.workers,
    )


class _Later:
    """RasterDataset whose store is opened when the first of them is asked for: stored features need none."""

    def __init__(self, part: Manifest, spec, stores: DiskCache | None):
        self.part, self.spec, self.stores = part, spec, stores
        self.labels = torch.from_numpy(part.labels())
        self.opened, self.opening = None, Lock()

    def __len__(self) -> int:
        return len(self.part)

    def rasters(self, index):
        with self.opening:
            if self.opened is None:
                self.opened = open_rasters(self.part, self.spec, self.stores)
        return self.opened.rasters(index)
