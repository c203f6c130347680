"""Rasters of the images of a split: decoded from their files, or read from the disk cache that all runs share."""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from threading import Lock, Semaphore
from typing import Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from cxr.common import code
from cxr.common.hardware import cores
from cxr.common.remote import CONNECTIONS, Remote
from cxr.datasets.manifest import Manifest, read_verified
from cxr.imaging.preprocess import InputSpec
from cxr.imaging.reader import ImageReader
from cxr.loading.cached_array import CachedArray, Plan
from cxr.loading.disk_cache import DiskCache, Write

T = TypeVar("T")

PREFETCH = 3  # batches that are read ahead of the one in use
_CHUNK = 64  # images that are decoded and written to the cache at once


class RasterDataset(Protocol):
    """The images of a split. Methods take indices `int64` of shape (B,) and may be called from several threads."""

    labels: np.ndarray
    """Class indices, `int64` of shape (n,)."""
    sizes: np.ndarray
    """Width and height of the images in their files, pixels, `int64` of shape (n, 2)."""

    def __len__(self) -> int: ...

    def rasters(self, index: np.ndarray) -> np.ndarray:
        """Rasters, `uint8` of shape (B, R, R)."""

    def records(self, index: np.ndarray) -> np.ndarray:
        """Records of `record_dtype`, of shape (B,): each raster, and whether its image is implausible."""


def record_dtype(size: int) -> np.dtype:
    """What is kept of an image: `raster` (`uint8`, size x size), `implausible` (`bool`)."""
    return np.dtype([("raster", np.uint8, (size, size)), ("implausible", np.bool_)])


class ImageDataset:
    """Decodes images from their files whenever they are asked for.

    A file that differs from the one in the manifest raises `CxrError`.
    """

    def __init__(self, split: Manifest, spec: InputSpec):
        self.split, self.spec, self.labels, self.sizes = split, spec, split.labels(), split.sizes()
        self._reader = ImageReader(spec)
        self._turns = Semaphore(cores())  # to decode: more threads than cores wait for a store at once

    def __len__(self) -> int:
        return len(self.split)

    def rasters(self, index: np.ndarray) -> np.ndarray:
        """Rasters, `uint8` of shape (B, R, R)."""
        return np.stack([self._decoded(self._reader.raster, i) for i in index])

    def records(self, index: np.ndarray) -> np.ndarray:
        """Records of `record_dtype`, of shape (B,)."""
        records = np.empty(len(index), record_dtype(self.spec.size))
        for row, i in enumerate(index):
            image = self._decoded(self._reader.read, i)
            records[row] = (image.raster, bool(image.implausible))
        return records

    def _decoded(self, decode: Callable[[bytes], T], i: int) -> T:
        data = read_verified(self.split, int(i))
        with self._turns:
            return decode(data)


class CachedDataset:
    """Reads images from the disk cache."""

    def __init__(self, array: CachedArray, labels: np.ndarray, sizes: np.ndarray):
        self.array, self.labels, self.sizes = array, labels, sizes

    def __len__(self) -> int:
        return len(self.array)

    def rasters(self, index: np.ndarray) -> np.ndarray:
        """Rasters, `uint8` of shape (B, R, R)."""
        return self.array.take(index)["raster"]

    def records(self, index: np.ndarray) -> np.ndarray:
        """Records of `record_dtype`, of shape (B,)."""
        return self.array.take(index)


class LazyDataset:
    """Opens its rasters when the first of them is asked for: training on cached features needs none."""

    def __init__(self, split: Manifest, spec: InputSpec, cache: DiskCache | None):
        self.labels, self.sizes = split.labels(), split.sizes()
        self._open = lambda: open_rasters(split, spec, cache)
        self._dataset: RasterDataset | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.labels)

    def rasters(self, index: np.ndarray) -> np.ndarray:
        """Rasters, `uint8` of shape (B, R, R)."""
        return self._opened().rasters(index)

    def records(self, index: np.ndarray) -> np.ndarray:
        """Records of `record_dtype`, of shape (B,)."""
        return self._opened().records(index)

    def _opened(self) -> RasterDataset:
        with self._lock:
            if self._dataset is None:
                self._dataset = self._open()
            return self._dataset


def open_rasters(split: Manifest, spec: InputSpec, cache: DiskCache | None, *, build: bool = True) -> RasterDataset:
    """The rasters of a split from the disk cache, or from the files without a cache.

    `build` decodes a split that is missing in the cache into it; without, such a split is read from the files.
    """
    images = ImageDataset(split, spec)
    if cache is None or not len(split):
        return images
    plan = Plan(
        kind="decoded",
        key={
            "manifest": split.digest,
            "order": order(split),
            "spec": spec.to_dict(),
            "code": code.digest("cxr.imaging.reader"),
        },
        shape=(len(split),),
        dtype=record_dtype(spec.size),
        about=f"{len(split):,} images at {spec.size} x {spec.size}",
    )
    array = cache.get(plan, lambda write: _decode(images, write)) if build else cache.find(plan)
    return CachedDataset(array, images.labels, images.sizes) if array is not None else images


def order(split: Manifest) -> str:
    """SHA-256 of the paths as they are sorted: rows of a cached array are found by their place."""
    return sha256("\n".join(split.rows["path"]).encode()).hexdigest()


def read_batches(
    read: Callable[[np.ndarray], np.ndarray], batches: Sequence[np.ndarray], threads: int | None = None
) -> Iterator[np.ndarray]:
    """Call `read` on each batch of indices and yield its rows in order, reading ahead in threads.

    `read` is `RasterDataset.rasters` or `records`; a batch is shared out over `threads` (default: one per core).
    """
    threads = threads or cores()
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[list[Future[np.ndarray]]] = deque()
        try:
            for number in range(len(batches)):
                while len(waiting) < PREFETCH and number + len(waiting) < len(batches):
                    ahead = batches[number + len(waiting)]
                    shares = np.array_split(ahead, min(threads, len(ahead)))
                    waiting.append([pool.submit(read, share) for share in shares])
                yield np.concatenate([future.result() for future in waiting.popleft()])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def in_order(count: int, batch_size: int) -> list[np.ndarray]:
    """Indices 0 to count - 1 in batches of `batch_size`, the last one possibly smaller."""
    return [np.arange(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]


def _decode(images: ImageDataset, write: Write) -> None:
    chunks = in_order(len(images), _CHUNK)
    threads = max(cores(), CONNECTIONS) if isinstance(images.split.root, Remote) else cores()
    with tqdm(total=len(images), desc="decoding", unit="image", leave=False, disable=not sys.stderr.isatty()) as bar:
        for chunk, records in zip(chunks, read_batches(images.records, chunks, threads), strict=True):
            write(int(chunk[0]), records)
            bar.update(len(chunk))
