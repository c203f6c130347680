"""Loader for the engine: images of a manifest, decoded, fitted, augmented and normalised.

The order of an epoch depends on seed and epoch alone, its augmentation on seed, epoch and batch, so that a resumed
training sees what it would have seen, with any number of workers.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cxr.common.hardware import cores
from cxr.datasets.manifest import Manifest, read_verified
from cxr.imaging import decode
from cxr.imaging.preprocess import InputSpec
from cxr.loading.augment import Augment

PREFETCH = 3  # batches that are being decoded while the network works on one


class RasterDataset(Protocol):
    """The images of one part of a manifest as `uint8` rasters, with their labels `int64` of shape (n,)."""

    labels: Tensor

    def __len__(self) -> int: ...
    def rasters(self, index: np.ndarray) -> np.ndarray:
        """Some of them, of shape (len(index), R, R); called from several threads."""


class ImageDataset:
    """Rasters that are decoded from their files whenever they are asked for.

    A file that is not the one the manifest lists raises `CxrError`.
    """

    def __init__(self, manifest: Manifest, spec: InputSpec):
        self.manifest, self.spec = manifest, spec
        self.labels = torch.from_numpy(manifest.labels())

    def __len__(self) -> int:
        return len(self.manifest)

    def rasters(self, index: np.ndarray) -> np.ndarray:
        """Of shape (len(index), R, R)."""
        return np.stack([self.spec.to_raster(decode.decode_grey(read_verified(self.manifest, int(i)))) for i in index])


class Loader(Protocol):
    """Yields the batches of an epoch on the device: images, or features computed before."""

    @property
    def images(self) -> int: ...
    def __len__(self) -> int: ...
    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]: ...


class ImageLoader:
    """Loader `(x, y)` on the device: x `float32` of shape (B, 3, S, S), y `int64` of shape (B,).

    Args:
        dataset: rasters of shape (R, R) and their labels.
        spec: what the network wants; R equals its size unless `augment` cuts smaller views from finer rasters.
        augment: applied to shuffled (training) batches only.
    """

    def __init__(
        self, dataset: RasterDataset, spec: InputSpec, *, batch_size: int, device: torch.device, seed: int = 0,
        shuffle: bool = False, augment: Augment | None = None, workers: int | str = "auto",
    ):  # fmt: skip
        self.dataset, self.batch_size, self.device = dataset, batch_size, device
        self.seed, self.shuffle, self.augment = seed, shuffle, augment
        self.threads = cores() if workers == "auto" else max(1, int(workers))
        self.normalise = Normalise(spec).to(device)

    @property
    def images(self) -> int:
        """Images of an epoch."""
        return sum(len(part) for part in self._parts(0))

    def __len__(self) -> int:
        return len(self._parts(0))

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch. Decoding runs ahead in threads: Pillow works outside Python's lock."""
        batches = self._parts(epoch)
        with ThreadPoolExecutor(self.threads) as pool:
            waiting: deque = deque()
            try:
                for number, part in enumerate(batches):
                    while len(waiting) < PREFETCH and number + len(waiting) < len(batches):
                        ahead = batches[number + len(waiting)].numpy()
                        shares = np.array_split(ahead, min(self.threads, len(ahead)))
                        waiting.append([pool.submit(self.dataset.rasters, share) for share in shares])
                    rasters = torch.from_numpy(np.concatenate([future.result() for future in waiting.popleft()]))
                    yield self.view(rasters, epoch, number), self.dataset.labels[part].to(self.device)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def view(self, rasters: Tensor, *numbers: int) -> Tensor:
        """Rasters `uint8` (B, R, R) to inputs (B, 3, S, S); what augmentation draws depends on seed and `numbers`."""
        if self.device.type == "cuda":
            rasters = rasters.pin_memory()
        rasters = rasters.to(self.device, non_blocking=True)
        if self.augment is None:
            return self.normalise(rasters.float())
        return self.normalise(self.augment(rasters, seeded(self.seed, *numbers)))

    def _parts(self, epoch: int) -> list[Tensor]:
        return parts(len(self.dataset), self.batch_size, self.seed if self.shuffle else None, epoch)


def parts(count: int, batch_size: int, seed: int | None, epoch: int) -> list[Tensor]:
    """Indices of each batch of an epoch: in order without a seed, else in the order that seed and epoch decide."""
    order = torch.arange(count) if seed is None else torch.randperm(count, generator=seeded(seed, epoch))
    found = list(order.split(batch_size))
    # Batch norm cannot learn from a single image; another epoch's order brings it into a fuller batch.
    return found[:-1] if seed is not None and len(found) > 1 and len(found[-1]) == 1 else found


class Normalise(torch.nn.Module):
    """The twin of `InputSpec.normalise` on a device: grey 0..255 of shape (B, S, S) to (B, 3, S, S)."""

    def __init__(self, spec: InputSpec):
        super().__init__()
        scale, shift = spec.affine()
        self.register_buffer("scale", torch.from_numpy(scale)[:, None, None])
        self.register_buffer("shift", torch.from_numpy(shift)[:, None, None])

    def forward(self, grey: Tensor) -> Tensor:
        return (grey[:, None] * self.scale + self.shift).contiguous(memory_format=torch.channels_last)


def class_weights(manifest: Manifest) -> Tensor:
    """`n / (C * n_c)` of shape (C,), `float32`: each class weighs the same in all (scikit-learn's "balanced")."""
    counts = torch.bincount(torch.from_numpy(manifest.labels()), minlength=len(manifest.classes))
    return (counts.sum() / (len(counts) * counts)).float()


def seeded(*numbers: int) -> torch.Generator:
    """A generator whose state depends on all `numbers` and on nothing else."""
    entropy = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(entropy[0]) << 32 | int(entropy[1]))
