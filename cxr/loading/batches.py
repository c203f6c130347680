"""Loaders: batches of images on the device, shuffled and augmented for training.

The order of an epoch depends on seed and epoch alone, the augmentation of an image on seed, epoch and the number of the
image. A resumed training therefore sees what an uninterrupted one sees, with any number of workers, and the views of an
image are the same in batches of any size.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cxr.common.hardware import cores
from cxr.datasets.manifest import Manifest
from cxr.imaging.preprocess import InputSpec
from cxr.loading.augment import Augment
from cxr.loading.rasters import RasterDataset, read_batches
from cxr.models.normalise import Normalise

_DRAWS = 1  # after seed and epoch: sets the draws of augmentation apart from those of the order


class Loader(Protocol):
    """Yields the batches of an epoch on the device: images, or features computed before."""

    @property
    def images(self) -> int:
        """Images of an epoch."""
        ...

    def __len__(self) -> int: ...

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches `(x, y)` of one epoch."""
        ...


class EpochOrder:
    """The order of `count` images in the batches of an epoch: shuffled by `seed` and epoch, or as they are (None)."""

    def __init__(self, count: int, batch_size: int, seed: int | None):
        self.count, self.batch_size, self.order_seed = count, batch_size, seed

    @property
    def images(self) -> int:
        """Images of an epoch."""
        return sum(len(indices) for indices in self.batches(0))

    def __len__(self) -> int:
        return len(self.batches(0))

    def batches(self, epoch: int) -> list[Tensor]:
        """Indices `int64` of each batch of an epoch."""
        return batch_indices(self.count, self.batch_size, self.order_seed, epoch)


class ImageLoader(EpochOrder):
    """Yields batches `(x, y)` on the device: x `float32` of shape (B, 3, S, S), y `int64` of shape (B,).

    Args:
        dataset: rasters of shape (R, R) and their labels.
        spec: the input of the network; R is its size unless `augment` cuts smaller views from finer rasters.
        batch_size: images per batch.
        device: where batches are put.
        seed: decides the order of the images and their augmentation.
        shuffle: draw a new order for every epoch.
        augment: applied to every batch; None leaves images as evaluation sees them.
        workers: threads that decode; "auto" is one per core.
    """

    def __init__(
        self,
        dataset: RasterDataset,
        spec: InputSpec,
        *,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        shuffle: bool = False,
        augment: Augment | None = None,
        workers: int | str = "auto",
    ):
        super().__init__(len(dataset), batch_size, seed if shuffle else None)
        self.dataset, self.device, self.seed, self.augment = dataset, device, seed, augment
        self.threads = cores() if workers == "auto" else max(1, int(workers))
        self.normalise = Normalise(spec).to(device)
        self._labels = torch.from_numpy(dataset.labels)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, decoded ahead of use."""
        batches = self.batches(epoch)
        draws = self.augment.draw(self.count, seeded(self.seed, epoch, _DRAWS)) if self.augment is not None else None
        rasters = read_batches(self.dataset.rasters, [indices.numpy() for indices in batches], self.threads)
        for indices, batch in zip(batches, rasters, strict=True):
            x = self._on_device(torch.from_numpy(batch))
            if self.augment is not None and draws is not None:
                x = self.augment(x, draws.of(indices))
            yield self.normalise(x), self._labels[indices].to(self.device)

    def _on_device(self, rasters: Tensor) -> Tensor:
        if self.device.type == "cuda":
            rasters = rasters.pin_memory()
        return rasters.to(self.device, non_blocking=True)


def batch_indices(count: int, batch_size: int, seed: int | None, epoch: int) -> list[Tensor]:
    """Indices of each batch of an epoch: in order without a seed, else in the order drawn by seed and epoch."""
    order = torch.arange(count) if seed is None else torch.randperm(count, generator=seeded(seed, epoch))
    batches = list(order.split(batch_size))
    # Batch norm cannot learn from a single image; the order of another epoch puts it into a fuller batch.
    return batches[:-1] if seed is not None and len(batches) > 1 and len(batches[-1]) == 1 else batches


def class_weights(split: Manifest) -> Tensor:
    """`n / (C * n_c)` of shape (C,), `float32`: every class has the same total weight (scikit-learn's "balanced")."""
    counts = torch.bincount(torch.from_numpy(split.labels()), minlength=len(split.classes))
    return (counts.sum() / (len(counts) * counts)).float()


def seeded(*numbers: int) -> torch.Generator:
    """A generator whose state depends on all `numbers` and on nothing else."""
    entropy = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(entropy[0]) << 32 | int(entropy[1]))
