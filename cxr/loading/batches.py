"""Loaders: batches of images on the device, shuffled and augmented for training.

The order of an epoch depends on seed and epoch alone, the augmentation of an image on seed, epoch and the number of the
image. A resumed training therefore sees what an uninterrupted one sees, with any number of workers, and the views of an
image are the same in batches of any size. Of several processes, each has its rows of the same batches.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cxr.common.hardware import cores
from cxr.common.share import WHOLE, Share
from cxr.datasets.manifest import Manifest
from cxr.imaging.preprocess import InputSpec
from cxr.loading.augment import Augment
from cxr.loading.mixing import Mixing
from cxr.loading.rasters import RasterDataset, read_batches
from cxr.models.normalise import Normalise
from cxr.settings.schema import TrainingSettings

# After seed and epoch: set the draws of augmentation and of mixing apart from those of the order.
_DRAWS, _PARTNERS = 1, 2


class Loader(Protocol):
    """Yields the batches of an epoch on the device: images, or features computed before."""

    @property
    def images(self) -> int:
        """Images of an epoch."""
        ...

    def __len__(self) -> int: ...

    def sizes(self) -> list[int]:
        """Images of each whole batch of an epoch; of several processes, each yields its rows of it."""
        ...

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches `(x, y)` of one epoch."""
        ...


class EpochOrder:
    """The order of `count` images in the batches of an epoch: shuffled by `seed` and epoch, or as they are (None).

    With `weights` (n,), as many images are drawn with these probabilities, with replacement. `batch_size` counts the
    images of a batch over all processes, of which this one has its `share`.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int | None, weights: Tensor | None = None, share: Share = WHOLE
    ):
        self.count, self.batch_size, self.order_seed, self.weights = count, batch_size, seed, weights
        self.share = share

    @property
    def images(self) -> int:
        """Images of an epoch."""
        return sum(self.sizes())

    def __len__(self) -> int:
        return len(self.sizes())

    def batches(self, epoch: int) -> list[Tensor]:
        """Indices `int64` of each whole batch of an epoch."""
        return batch_indices(self.count, self.batch_size, self.order_seed, epoch, self.weights)

    def sizes(self) -> list[int]:
        """Images of each whole batch, the same in every epoch: nothing is drawn."""
        return batch_sizes(self.count, self.batch_size, shuffled=self.order_seed is not None)

    def parts(self, epoch: int) -> list[Tensor]:
        """Indices `int64` of the own rows of each batch of an epoch."""
        return [indices[self.share.rows(len(indices))] for indices in self.batches(epoch)]


class ImageLoader(EpochOrder):
    """Yields batches `(x, y)` on the device: x `float32` of shape (B, 3, S, S), y `int64` of shape (B,).

    With `mixing` that changes labels, y has the probabilities of the classes, `float32` of shape (B, C).

    Args:
        dataset: rasters of shape (R, R) and their labels.
        spec: the input of the network; R is its size unless `augment` cuts smaller views from finer rasters.
        batch_size: images per batch, over all processes.
        device: where batches are put.
        seed: decides the order of the images and their augmentation.
        shuffle: draw a new order for every epoch.
        sampler: `balanced` draws images so that all classes are equally frequent; needs `shuffle`.
        augment: applied to every batch; None leaves images as evaluation sees them.
        mixing: mixes the images of a batch with others; needs `augment`.
        workers: threads that decode; "auto" is one per core.
        share: which rows of every batch are those of this process.
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
        sampler: str = "shuffled",
        augment: Augment | None = None,
        mixing: Mixing | None = None,
        workers: int | str = "auto",
        share: Share = WHOLE,
    ):
        weights = balanced(dataset.labels) if sampler == "balanced" else None
        super().__init__(len(dataset), batch_size, seed if shuffle else None, weights, share)
        self.dataset, self.device, self.seed, self.augment, self.mixing = dataset, device, seed, augment, mixing
        self.threads = cores() if workers == "auto" else max(1, int(workers))
        self.normalise = Normalise(spec).to(device)
        self._labels = torch.from_numpy(dataset.labels)

    def epoch(self, epoch: int, some: slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch, or `some` of them, decoded ahead of use."""
        batches = self.parts(epoch)[some]
        augment, mixing = self.augment, self.mixing
        draws = augment.draw(self.count, seeded(self.seed, epoch, _DRAWS)) if augment is not None else None
        partners = mixing.draw(self.count, seeded(self.seed, epoch, _PARTNERS)) if mixing is not None else None
        read = batches
        if mixing is not None and partners is not None and mixing.settings.pairs:
            read = [torch.cat([indices, partners.index[indices]]) for indices in batches]
        rasters = read_batches(self.dataset.rasters, [indices.numpy() for indices in read], self.threads)
        for indices, with_partners, batch in zip(batches, read, rasters, strict=True):
            x, y = self._on_device(torch.from_numpy(batch)), self._labels[with_partners].to(self.device)
            if augment is not None and draws is not None:
                drawn = draws.of(with_partners)
                if mixing is not None and partners is not None:
                    x, y = mixing(x, y, partners.of(indices), augment, drawn)
                else:
                    x = augment(x, drawn)
            yield self.normalise(x), y

    def _on_device(self, rasters: Tensor) -> Tensor:
        if self.device.type == "cuda":
            rasters = rasters.pin_memory()
        return rasters.to(self.device, non_blocking=True)


def batch_indices(
    count: int, batch_size: int, seed: int | None, epoch: int, weights: Tensor | None = None
) -> list[Tensor]:
    """Indices of each batch of an epoch: in order without a seed, else in the order drawn by seed and epoch."""
    if seed is None:
        order = torch.arange(count)
    elif weights is None:
        order = torch.randperm(count, generator=seeded(seed, epoch))
    else:
        order = torch.multinomial(weights, count, replacement=True, generator=seeded(seed, epoch))
    sizes = batch_sizes(count, batch_size, shuffled=seed is not None)
    return list(order[: sum(sizes)].split(sizes))


def batch_sizes(count: int, batch_size: int, *, shuffled: bool) -> list[int]:
    """Images of each batch of an epoch of `count` images."""
    sizes = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    # Batch norm cannot learn from a single image; the order of another epoch puts it into a fuller batch.
    return sizes[:-1] if shuffled and len(sizes) > 1 and sizes[-1] == 1 else sizes


def class_weights(split: Manifest) -> Tensor:
    """`n / (C * n_c)` of shape (C,), `float32`: every class has the same total weight (scikit-learn's "balanced")."""
    counts = torch.bincount(torch.from_numpy(split.labels()), minlength=len(split.classes))
    return (counts.sum() / (len(counts) * counts)).float()


def loss_weights(split: Manifest, settings: TrainingSettings) -> Tensor | None:
    """Weights of the classes in the training loss, of shape (C,); None: all alike."""
    return class_weights(split) if settings.class_weights == "balanced" else None


def balanced(labels: np.ndarray) -> Tensor:
    """Probabilities of n images, up to a factor, by which all classes are equally frequent, `float64` (n,)."""
    counts = np.bincount(labels)
    return torch.from_numpy(1 / counts[labels])


def seeded(*numbers: int) -> torch.Generator:
    """A generator whose state depends on all `numbers` and on nothing else."""
    entropy = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(entropy[0]) << 32 | int(entropy[1]))
