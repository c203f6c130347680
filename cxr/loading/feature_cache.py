"""The feature store: what a frozen prefix gives for every image and view, computed once and trained from.

Augmentation is then drawn when the store is written: each training image has `views` of them, and every epoch draws
one of them for it. Without augmentation a single view is exact: training from the store gives the very weights that
training from the images gives.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cxr.common.files import code_digest
from cxr.datasets.manifest import Manifest
from cxr.imaging import decode
from cxr.loading import augment, batches
from cxr.loading.batches import ImageLoader, parts, seeded
from cxr.loading.disk_cache import DiskCache, Plan, Store
from cxr.models import build, efficientnet_lite, freezing
from cxr.models.build import Network
from cxr.models.device import Device
from cxr.models.freezing import frozen

log = logging.getLogger("cxr.loading.feature_cache")

_VIEWS, _DRAWS = 1_000_000, 2_000_000  # first numbers of seeds, so that they meet no epoch's


class FeatureLoader:
    """Loader `(features, y)` on the device from a store whose row `view * images + i` belongs to image `i`."""

    def __init__(
        self, store: Store, labels: Tensor, *, batch_size: int, device: Device, seed: int | None, views: int = 1
    ):
        self.store, self.labels, self.views = store, labels, views
        self.batch_size, self.device, self.seed = batch_size, device, seed

    @property
    def images(self) -> int:
        """Images of an epoch."""
        return sum(len(part) for part in self._parts(0))

    def __len__(self) -> int:
        return len(self._parts(0))

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch; every image shows one of its views."""
        count = len(self.labels)
        view = torch.zeros(count, dtype=torch.int64)
        if self.views > 1 and self.seed is not None:
            view = torch.randint(self.views, (count,), generator=seeded(self.seed, _DRAWS + epoch))
        for part in self._parts(epoch):
            rows = (view[part] * count + part).numpy()
            yield self._features(self.store.take(rows)), self.labels[part].to(self.device.device)

    def _features(self, rows: np.ndarray) -> Tensor:
        found = torch.from_numpy(rows)
        if self.device.dtype == torch.bfloat16 and found.dtype == torch.int16:
            found = found.view(torch.bfloat16)
        if self.device.device.type == "cuda":
            found = found.pin_memory()
        found = found.to(self.device.device, non_blocking=True)
        return found.contiguous(memory_format=torch.channels_last) if found.dim() == 4 else found

    def _parts(self, epoch: int) -> list[Tensor]:
        return parts(len(self.labels), self.batch_size, self.seed, epoch)


@dataclass(frozen=True)
class Wanted:
    """What a feature store is asked for: the images, the frozen half of a network, and how it is computed."""

    part: Manifest
    batches: ImageLoader
    network: Network
    prefix: nn.Module
    unfreeze: int | str
    device: Device
    views: int

    def plan(self, weights: str, one: np.ndarray) -> Plan:
        """The store for `weights`, the digest of the prefix, which gives `one` for an image."""
        cut = self.batches.augment
        drawn = {"settings": cut.settings.model_dump(), "seed": self.batches.seed} if cut is not None else None
        shape = (self.views * len(self.part), *one.shape[1:])
        return Plan(
            kind="features",
            key={
                "manifest": self.part.digest,
                "input": self.network.spec.to_dict(),
                "model": self.network.name,
                "weights": weights,
                "boundary": self.unfreeze,
                "augment": drawn,
                "views": self.views,
                "device": self.device.device.type,
                "dtype": str(self.device.dtype),
                "torch": torch.__version__,
                "code": code_digest(
                    decode, batches, augment, freezing, build, efficientnet_lite, sys.modules[__name__]
                ),
            },
            shape=shape,
            dtype=one.dtype,
            about=f"{len(self.part):,} images x {self.views} views of {' x '.join(map(str, shape[1:]))}",
        )

    def write(self, write) -> None:
        """Compute all rows, view by view."""
        ordered = ImageLoader(
            self.batches.dataset, self.network.spec, batch_size=self.batches.batch_size, device=self.device.device,
            seed=self.batches.seed, augment=self.batches.augment, workers=self.batches.threads,
        )  # fmt: skip
        self.prefix.eval().requires_grad_(False)
        total = self.views * len(self.part)
        with tqdm(total=total, desc="features", unit="image", leave=False, disable=not sys.stderr.isatty()) as bar:
            for view in range(self.views):
                at = view * len(self.part)
                for x, _ in ordered.epoch(_VIEWS + view):
                    with self.device.autocast():
                        rows = _numpy(frozen(self.prefix, x))
                    write(at, rows)
                    at += len(rows)
                    bar.update(len(rows))


def open_features(wanted: list[Wanted], stores: DiskCache) -> list[Store] | None:
    """The stores of all that is wanted (made where they are missing), or None where they are too large together."""
    weights, example = digest(wanted[0].prefix), _example(wanted[0])
    plans = [one.plan(weights, example) for one in wanted]
    total = sum(plan.bytes for plan in plans)
    if total > stores.limit:
        log.warning(
            "stored features would take %.1f GB, cache.max_gb allows %.1f GB: trains without them",
            total / 1e9, stores.limit / 1e9,
        )  # fmt: skip
        return None
    return [stores.get(plan, one.write) for plan, one in zip(plans, wanted, strict=True)]


def _example(wanted: Wanted) -> np.ndarray:
    """What the prefix gives for a blank image, of shape (1, ...)."""
    size = wanted.network.spec.size
    blank = torch.zeros(1, 3, size, size, device=wanted.device.device).contiguous(memory_format=torch.channels_last)
    wanted.prefix.eval()
    with torch.no_grad(), wanted.device.autocast():
        return _numpy(wanted.prefix(blank))


def digest(module: nn.Module) -> str:
    """SHA-256 over names and values of a module's weights and buffers."""
    found = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        found.update(_numpy(value.detach()).tobytes())
    return found.hexdigest()


def _numpy(values: Tensor) -> np.ndarray:
    """As an array; bfloat16, which numpy does not have, as the `int16` of its bits."""
    values = values.cpu().contiguous()
    return (values.view(torch.int16) if values.dtype == torch.bfloat16 else values).numpy()
