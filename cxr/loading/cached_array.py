"""One array of the disk cache: what it will hold, and how its rows are read (see `cxr.loading.disk_cache`)."""

import hashlib
import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 1
ROWS, FACTS = "rows.bin", "facts.json"
# Mapped pages that were read count as memory of the process until they are released, which costs next to nothing.
_RELEASE_AFTER = 8 * 2**20  # bytes


@dataclass(frozen=True)
class Plan:
    """What a cached array will hold.

    Attributes:
        kind: first part of the name of its folder.
        key: everything that decides its content, as plain values; another key is another array.
        shape: shape of the whole array; rows are along the first axis.
        dtype: type of its values.
        about: description of its content, for the log.
    """

    kind: str
    key: dict[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype
    about: str

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def name(self) -> str:
        """Name of the folder."""
        text = json.dumps([FORMAT, self.kind, self.key, list(self.shape), self.dtype.str], sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


class CachedArray:
    """A finished array; safe to read from several threads."""

    def __init__(self, folder: Path, plan: Plan):
        self.rows = np.memmap(folder / ROWS, plan.dtype, "r", shape=plan.shape)
        self._map: mmap.mmap = self.rows._mmap  # type: ignore[attr-defined]
        self._row_bytes = plan.bytes // max(1, plan.shape[0])
        self._read = 0

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: np.ndarray) -> np.ndarray:
        """A copy of some rows, in the order of `index`."""
        rows = self.rows[index]
        self._read += self._row_bytes * len(index)
        if self._read > _RELEASE_AFTER:
            self._read = 0
            if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows and macOS
                self._map.madvise(mmap.MADV_DONTNEED)
        return rows
