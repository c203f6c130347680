"""The feature cache: what a frozen prefix computes for every image and view, computed once and trained from.

Augmentation is drawn when the cache is written: each training image has `views` views, and every epoch draws one of
them. Without augmentation a single view is exact: training on cached features reaches the weights that training on
images reaches, on a CPU bit for bit.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cxr.common import code
from cxr.common.share import ALONE, WHOLE, Crew, Share
from cxr.datasets.manifest import Manifest
from cxr.loading.batches import EpochOrder, ImageLoader, balanced, seeded
from cxr.loading.cached_array import CachedArray, Plan
from cxr.loading.disk_cache import DiskCache, Write
from cxr.loading.rasters import order
from cxr.models.build import Network
from cxr.models.device import Device
from cxr.models.freezing import run_frozen

log = logging.getLogger(__name__)

_BATCH = 64  # images; fixed, since rounding may depend on it and the cache is shared by trainings of any batch size
_VIEWS, _DRAWS = 1_000_000, 2_000_000  # first numbers of seeds, apart from those of epochs


class FeatureLoader(EpochOrder):
    """Yields batches `(features, y)` on the device from an array whose row `view * images + i` belongs to image `i`.

    `seed=None` reads the images in order and shows the first view of each.
    """

    def __init__(
        self,
        array: CachedArray,
        labels: np.ndarray,
        *,
        batch_size: int,
        device: Device,
        seed: int | None,
        views: int = 1,
        sampler: str = "shuffled",
        share: Share = WHOLE,
    ):
        super().__init__(len(labels), batch_size, seed, balanced(labels) if sampler == "balanced" else None, share)
        self.array, self.labels, self.views = array, torch.from_numpy(labels), views
        self.device, self.seed = device, seed

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch; every image shows one of its views."""
        count = self.count
        view = torch.zeros(count, dtype=torch.int64)
        if self.views > 1 and self.seed is not None:
            view = torch.randint(self.views, (count,), generator=seeded(self.seed, _DRAWS + epoch))
        for indices in self.parts(epoch):
            rows = (view[indices] * count + indices).numpy()
            yield self._features(self.array.take(rows)), self.labels[indices].to(self.device.device)

    def _features(self, rows: np.ndarray) -> Tensor:
        features = torch.from_numpy(rows)
        if self.device.dtype == torch.bfloat16 and features.dtype == torch.int16:
            features = features.view(torch.bfloat16)
        if self.device.device.type == "cuda":
            features = features.pin_memory()
        features = features.to(self.device.device, non_blocking=True)
        return features.contiguous(memory_format=torch.channels_last) if features.dim() == 4 else features


@dataclass(frozen=True)
class FeatureRequest:
    """The features of a split: its images, the frozen half of a network, and where and in how many views it runs.

    `change` names what `loader` does to the images of the split, if anything (see `cxr.loading.changes`).
    """

    split: Manifest
    loader: ImageLoader
    network: Network
    prefix: nn.Module
    unfreeze: int | str
    device: Device
    views: int
    change: str | None = None

    def plan(self, weights: str, example: np.ndarray) -> Plan:
        """The array for a prefix of digest `weights`, whose features of one image are like `example` (1, ...)."""
        views = self.loader.augment
        drawn = {"settings": views.settings.model_dump(), "seed": self.loader.seed} if views is not None else None
        shape = (self.views * len(self.split), *example.shape[1:])
        return Plan(
            kind="features",
            key={
                "manifest": self.split.digest,
                "order": order(self.split),
                "input": self.network.spec.to_dict(),
                "model": self.network.name,
                "weights": weights,
                "boundary": self.unfreeze,
                "augment": drawn,
                "views": self.views,
                "change": self.change,
                "device": self.device.device.type,
                "dtype": str(self.device.dtype),
                "torch": torch.__version__,  # with the build, which computes otherwise for another device
                "code": code.digest(__name__),
            },
            shape=shape,
            dtype=example.dtype,
            about=f"{len(self.split):,} images x {self.views} views of {' x '.join(map(str, shape[1:]))}"
            + (f", {self.change}" if self.change else ""),
        )

    def compute(self, write: Write, share: Share) -> None:
        """Compute the rows of one of several processes, view by view.

        Each has whole batches, which are those of a single process: no feature depends on the number of processes.
        """
        ordered = ImageLoader(
            self.loader.dataset,
            self.network.spec,
            batch_size=_BATCH,
            device=self.device.device,
            seed=self.loader.seed,
            augment=self.loader.augment,
            workers=self.loader.threads,
        )
        self.prefix.eval().requires_grad_(False)
        sizes = ordered.sizes()
        own = share.part(self.views * len(sizes))
        total, hidden = sum((self.views * sizes)[own]), not (sys.stderr.isatty() and share.first)
        with tqdm(total=total, desc="features", unit="image", leave=False, disable=hidden) as bar:
            for view in range(self.views):
                first = view * len(sizes)
                some = range(len(sizes))[max(0, own.start - first) : max(0, own.stop - first)]
                if not some:
                    continue
                at = view * len(self.split) + some.start * _BATCH
                for x, _ in ordered.epoch(_VIEWS + view, slice(some.start, some.stop)):
                    with self.device.autocast():
                        rows = _numpy(run_frozen(self.prefix, x))
                    write(at, rows)
                    at += len(rows)
                    bar.update(len(rows))


def open_features(requests: list[FeatureRequest], cache: DiskCache, crew: Crew = ALONE) -> list[CachedArray] | None:
    """The features of all requests, or None if they are too large together.

    The processes of a `crew`, all of which call this, compute what is missing together.
    """
    weights, example = digest(requests[0].prefix), _example(requests[0])
    plans = [request.plan(weights, example) for request in requests]
    total = sum(plan.bytes for plan in plans)
    if total > cache.limit:
        log.warning(
            "cached features would take %.1f GB, cache.max_gb allows %.1f GB: training without them",
            total / 1e9,
            cache.limit / 1e9,
        )
        return None
    arrays = [
        cache.get(plan, partial(request.compute, share=crew.share), crew)
        for plan, request in zip(plans, requests, strict=True)
    ]
    return [array for array in arrays if array is not None]  # none is larger than all of them together


def _example(request: FeatureRequest) -> np.ndarray:
    """Features of a blank image, of shape (1, ...)."""
    size = request.network.spec.size
    blank = torch.zeros(1, 3, size, size, device=request.device.device).contiguous(memory_format=torch.channels_last)
    request.prefix.eval()
    with torch.no_grad(), request.device.autocast():
        return _numpy(request.prefix(blank))


def digest(module: nn.Module) -> str:
    """SHA-256 over names and values of a module's weights and buffers."""
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        sha.update(_numpy(value.detach()).tobytes())
    return sha.hexdigest()


def _numpy(values: Tensor) -> np.ndarray:
    """As an array; bfloat16, which numpy lacks, as `int16` with the same bits."""
    values = values.cpu().contiguous()
    return (values.view(torch.int16) if values.dtype == torch.bfloat16 else values).numpy()
