"""The decoded store: every image decoded and resized once per raster, then read back by all runs."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL
import torch
from tqdm import tqdm

from cxr.common.files import code_digest
from cxr.common.hardware import cores
from cxr.datasets.manifest import Manifest
from cxr.imaging import decode
from cxr.imaging.preprocess import InputSpec
from cxr.loading.batches import ImageDataset, RasterDataset
from cxr.loading.disk_cache import DiskCache, Plan, Store

_CHUNK = 64  # images that are written at once


class Decoded:
    """Rasters from a store."""

    def __init__(self, store: Store, labels: torch.Tensor):
        self.store, self.labels = store, labels

    def __len__(self) -> int:
        return len(self.store)

    def rasters(self, index: np.ndarray) -> np.ndarray:
        """Of shape (len(index), R, R)."""
        return self.store.take(index)


def open_rasters(part: Manifest, spec: InputSpec, stores: DiskCache | None) -> RasterDataset:
    """The rasters of a part: from their store (made where it is missing), or decoded anew where there is none."""
    anew = ImageDataset(part, spec)
    if stores is None or not len(part):
        return anew
    plan = Plan(
        kind="decoded",
        key={"manifest": part.digest, "spec": spec.to_dict(), "pillow": PIL.__version__, "code": code_digest(decode)},
        shape=(len(part), spec.size, spec.size),
        dtype=np.dtype(np.uint8),
        about=f"{len(part):,} images at {spec.size} x {spec.size}",
    )
    store = stores.get(plan, lambda write: _decode(anew, write))
    return Decoded(store, anew.labels) if store is not None else anew


def _decode(anew: ImageDataset, write) -> None:
    chunks = np.array_split(np.arange(len(anew)), max(1, -(-len(anew) // _CHUNK)))
    with ThreadPoolExecutor(cores()) as pool:
        bar = tqdm(total=len(anew), desc="decoding", unit="image", leave=False, disable=not sys.stderr.isatty())
        # Two chunks a thread at a time, so that memory stays the same for any number of images.
        width = 2 * cores()
        with bar:
            for first in range(0, len(chunks), width):
                some = chunks[first : first + width]
                for chunk, rasters in zip(some, pool.map(anew.rasters, some), strict=True):
                    write(int(chunk[0]), rasters)
                    bar.update(len(chunk))
