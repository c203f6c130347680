"""Chooses what a training reads: images or cached features, whichever is faster and fits the disk."""

from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from cxr.common.share import ALONE, WHOLE, Crew, Share
from cxr.datasets.manifest import Manifest
from cxr.imaging.preprocess import InputSpec
from cxr.loading.augment import Augment, raster_spec
from cxr.loading.batches import ImageLoader, Loader, loss_weights
from cxr.loading.changes import CHANGES, UNCHANGED, ChangedDataset, whole_patients
from cxr.loading.disk_cache import CachedArray, DiskCache
from cxr.loading.feature_cache import FeatureLoader, FeatureRequest, open_features
from cxr.loading.mixing import Mixing
from cxr.loading.rasters import LazyDataset, RasterDataset
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
    source = _Source(network, settings, open_cache(cache), device, seed, share)
    train, val = manifest.split("train"), manifest.split("val")
    val_images = source.validation(val)
    rows = whole_patients(val, seed, settings.select_images)
    changed = source.changed(val_images, rows) if settings.select == "robust" else {}
    views = cached_views(settings, cache, unfreeze)
    if cache is None or not views or isinstance(prefix, nn.Identity):
        return Loaders(source.staged(train), val_images, list(changed.values()), prefix)
    train_images = source.training(train, settings.augment, network.spec)

    def request(split: Manifest, images: ImageLoader, views: int = 1, change: str | None = None) -> FeatureRequest:
        return FeatureRequest(split, images, network, prefix, unfreeze, device, views, change)

    some = replace(val, rows=val.rows.iloc[rows])
    requests = [request(train, train_images, views), request(val, val_images)]
    requests += [request(some, images, change=name) for name, images in changed.items()]
    arrays = open_features(requests, DiskCache(cache.dir, cache.max_gb), crew)
    if arrays is None:
        return Loaders(train_images, val_images, list(changed.values()), prefix)
    of_train, of_val, *of_changed = arrays
    return Loaders(
        source.features(of_train, train_images, views),
        source.features(of_val, val_images),
        [source.features(array, images) for array, images in zip(of_changed, changed.values(), strict=True)],
        nn.Identity(),
    )


@dataclass(frozen=True)
class _Source:
    """Makes the loaders of a training, all of which have its batches, device and seed."""

    network: Network
    settings: TrainingSettings
    decoded: DiskCache | None
    device: Device
    seed: int
    share: Share

    def validation(self, split: Manifest) -> ImageLoader:
        """Images as evaluation sees them."""
        return self._images(LazyDataset(split, self.network.spec, self.decoded), self.network.spec)

    def changed(self, val: ImageLoader, rows: np.ndarray) -> dict[str, ImageLoader]:
        """Some validation images under every change, by its name."""
        changes = {name: change for name, change in CHANGES.items() if name != UNCHANGED}
        return {
            name: self._images(ChangedDataset(val.dataset, rows, change), self.network.spec)
            for name, change in changes.items()
        }

    def staged(self, split: Manifest) -> Loader:
        """Training images: one loader, or one for each stage."""
        settings, spec = self.settings, self.network.spec
        if not settings.stages:
            return self.training(split, settings.augment, spec)
        loaders: list[Loader] = [
            self.training(split, settings.augment.scaled(stage.strength), spec.scaled(stage.size))
            for stage in settings.stages
        ]
        ends = last_epochs(settings.stages, settings.epochs)
        return StagedLoader(loaders, ends, [stage.strength for stage in settings.stages])

    def training(self, split: Manifest, augment: AugmentSettings, spec: InputSpec) -> ImageLoader:
        """Views of training images at the size of `spec`."""
        views = None if augment.off else Augment(augment, spec.size)
        rasters = spec if augment.off else raster_spec(spec, augment)
        classes = len(self.network.classes)
        mixing = Mixing(augment, classes, loss_weights(split, self.settings)) if augment.mixes else None
        dataset = LazyDataset(split, rasters, self.decoded)
        return self._images(dataset, spec, shuffle=True, augment=views, mixing=mixing)

    def features(self, array: CachedArray, images: ImageLoader, views: int | None = None) -> FeatureLoader:
        """Cached features of `images`: of so many views of each, for training, or of the images as they are."""
        training = views is not None
        return FeatureLoader(
            array,
            images.dataset.labels,
            batch_size=self.settings.batch_size,
            device=self.device,
            seed=self.seed if training else None,
            views=views or 1,
            sampler=self.settings.sampler if training else "shuffled",
            share=self.share,
        )

    def _images(
        self,
        dataset: RasterDataset,
        spec: InputSpec,
        *,
        shuffle: bool = False,
        augment: Augment | None = None,
        mixing: Mixing | None = None,
    ) -> ImageLoader:
        return ImageLoader(
            dataset,
            spec,
            batch_size=self.settings.batch_size,
            device=self.device.device,
            seed=self.seed,
            shuffle=shuffle,
            sampler=self.settings.sampler if shuffle else "shuffled",
            augment=augment,
            mixing=mixing,
            workers=self.settings.workers,
            share=self.share,
        )
