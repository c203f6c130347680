"""Memory-mapped arrays that are computed once and shared by all runs, each in a folder named by its key.

A store is `rows.bin` (raw values in C order) and `facts.json` (shape, key and digest). It is built in a scratch folder
and renamed, under a lock, so that it is whole or absent, whoever builds it at the same time.
"""

import hashlib
import json
import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import platformdirs
from filelock import FileLock

from cxr.common.files import sha256_of, write_atomic
from cxr.errors import CxrError

log = logging.getLogger("cxr.loading.disk_cache")

Write = Callable[[int, np.ndarray], None]
FORMAT = 1
ROWS, FACTS = "rows.bin", "facts.json"
GB = 10**9
# Mapped pages that were read count as memory of the process until they are given back, which costs next to nothing.
_RELEASE_AFTER = 8 * 2**20  # bytes


@dataclass(frozen=True)
class Plan:
    """What a store will hold.

    Attributes:
        kind: first part of its folder's name.
        key: everything that decides its content, as plain values; another key is another store.
        shape, dtype: of the whole array; rows are along the first axis.
        about: what it holds, in words, for the log.
    """

    kind: str
    key: dict[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype
    about: str

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def name(self) -> str:
        text = json.dumps([FORMAT, self.kind, self.key, list(self.shape), self.dtype.str], sort_keys=True)
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


class Store:
    """A finished store; safe to read from several threads."""

    def __init__(self, folder: Path, plan: Plan):
        self.rows = np.memmap(folder / ROWS, plan.dtype, "r", shape=plan.shape)
        self._row_bytes = plan.bytes // max(1, plan.shape[0])
        self._read = 0

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: np.ndarray) -> np.ndarray:
        """A copy of some rows, in the order of `index`."""
        found = self.rows[index]
        self._read += self._row_bytes * len(index)
        if self._read > _RELEASE_AFTER:
            self._read = 0
            self.rows._mmap.madvise(mmap.MADV_DONTNEED)
        return found


class DiskCache:
    """The stores below one folder, together no larger than `max_gb`; the least recently used go first."""

    def __init__(self, folder: str | Path | None, max_gb: float):
        self.folder = Path(folder).expanduser() if folder else Path(platformdirs.user_cache_dir("cxr")) / "stores"
        self.limit = round(max_gb * GB)

    def get(self, plan: Plan, fill: Callable[[Write], None]) -> Store | None:
        """The store of `plan`, built by `fill` where it is not there; None where it is larger than the bound.

        `fill` gets a function to write some rows with: the number of the first, and their values.

        A store that is there but damaged is built anew. A folder that cannot be written is read from where it has the
        store already; else `CxrError` is raised.
        """
        if plan.bytes > self.limit:
            log.warning(
                "%s would take %s on disk, cache.max_gb allows %s: goes without",
                plan.about, in_words(plan.bytes), in_words(self.limit),
            )  # fmt: skip
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f".{plan.name}.lock"):
                return self._found(plan) or self._built(plan, fill)
        except OSError as error:
            if isinstance(error, PermissionError) and (found := self._found(plan)) is not None:
                return found
            raise CxrError(
                f"store {self.folder}: {error.strerror or error}; make room, or set cache.dir or cache.max_gb"
            ) from None

    def _found(self, plan: Plan) -> Store | None:
        folder = self.folder / plan.name
        if not (folder / FACTS).is_file():
            return None
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            whole = (folder / ROWS).stat().st_size == plan.bytes and sha256_of(folder / ROWS) == facts["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            log.warning("%s is damaged: built anew", folder)
            return None
        with suppress(PermissionError):
            os.utime(folder / FACTS)  # for `_make_room`: used now
        log.info("%s: %s, %s, read from %s", plan.kind, plan.about, in_words(plan.bytes), folder)
        return Store(folder, plan)

    def _built(self, plan: Plan, fill: Callable[[Write], None]) -> Store:
        folder = self.folder / plan.name
        for left in self.folder.glob(f".{plan.name}-*"):  # by a process that was killed: the lock is ours
            shutil.rmtree(left, ignore_errors=True)
        self._make_room(plan)
        log.info("%s: %s, %s on disk, is written to %s", plan.kind, plan.about, in_words(plan.bytes), folder)
        scratch = Path(tempfile.mkdtemp(prefix=f".{plan.name}-", dir=self.folder))
        try:
            with (scratch / ROWS).open("wb") as file:
                # Written, not mapped: a full disk is then an error with a message, not a signal that kills.
                fill(lambda first, values: _write(file, plan, first, values))
                file.truncate(plan.bytes)
                file.flush()
                os.fsync(file.fileno())
            facts = {"format": FORMAT, "about": plan.about, "key": plan.key, "shape": list(plan.shape),
                     "dtype": plan.dtype.str, "sha256": sha256_of(scratch / ROWS)}  # fmt: skip
            write_atomic(scratch / FACTS, (json.dumps(facts, indent=2) + "\n").encode())
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return Store(folder, plan)

    def _make_room(self, plan: Plan) -> None:
        """Remove the least recently used stores until `plan` fits; those that are in use stay."""
        there = sorted(self.listed(), key=lambda entry: entry[2])
        excess = sum(size for _, size, _ in there) + plan.bytes - self.limit
        for folder, size, _ in there:
            if excess <= 0:
                return
            lock = FileLock(self.folder / f".{folder.name}.lock")
            with lock:  # nobody builds it now; who reads it keeps what is mapped
                shutil.rmtree(folder, ignore_errors=True)
            log.info("removed %s (%s) to stay within cache.max_gb", folder.name, in_words(size))
            excess -= size

    def listed(self) -> Iterator[tuple[Path, int, float]]:
        """Folder, bytes and time of last use of every finished store."""
        for facts in self.folder.glob(f"*/{FACTS}"):
            try:
                yield facts.parent, (facts.parent / ROWS).stat().st_size, facts.stat().st_mtime
            except OSError:  # another process has just removed it
                continue

    def clear(self) -> int:
        """Remove every store, and what broken-off attempts left; returns the bytes that were freed."""
        freed = sum(size for _, size, _ in self.listed())
        shutil.rmtree(self.folder, ignore_errors=True)
        return freed


def _write(file: BinaryIO, plan: Plan, first: int, values: np.ndarray) -> None:
    if values.dtype != plan.dtype or values.shape[1:] != plan.shape[1:] or first + len(values) > plan.shape[0]:
        raise ValueError(f"{plan.kind}: rows {values.shape} {values.dtype} at {first} do not fit {plan.shape}")
    file.seek(first * (plan.bytes // plan.shape[0]))
    file.write(np.ascontiguousarray(values).data)


def in_words(size: int) -> str:
    """Bytes as people say them."""
    for unit, name in ((GB, "GB"), (10**6, "MB"), (1000, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
