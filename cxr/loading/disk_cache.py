"""The disk cache: memory-mapped arrays computed once and shared by all runs, each in a folder named by its key.

An array is `rows.bin` (raw values in C order) and `facts.json` (shape, key and digest). It is built in a scratch folder
under a lock and then renamed, so that it is whole or absent whoever builds it at the same time. Several processes of a
machine can build it together: the first of them holds the lock, and each writes its rows into the one file.
"""

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

from cxr.common.files import publish, sha256_of
from cxr.common.share import ALONE, Crew
from cxr.errors import CxrError
from cxr.loading.cached_array import FACTS, FORMAT, ROWS, CachedArray, Plan

log = logging.getLogger(__name__)

Write = Callable[[int, np.ndarray], None]
Fill = Callable[[Write], None]
GB = 10**9
# Names that this module gives: arrays, their locks and scratch folders.
_OURS = re.compile(r"\.?([a-z]+-[0-9a-f]{20})(?:\.lock|-\w+)?")


class DiskCache:
    """The arrays in one folder, together no larger than `max_gb`; the least recently used are evicted first."""

    def __init__(self, folder: str | Path | None, max_gb: float):
        self.folder = Path(folder).expanduser() if folder else Path(platformdirs.user_cache_dir("cxr")) / "arrays"
        self.limit = round(max_gb * GB)

    def get(self, plan: Plan, fill: Fill, crew: Crew = ALONE) -> CachedArray | None:
        """The array of `plan`, built by `fill` if it is missing; None if it is larger than `max_gb`.

        `fill` is given a function that writes some rows: it takes the number of the first row and their values. A
        damaged array is built again. A read-only folder serves the arrays it has. The processes of a `crew`, all of
        which call this, have the folder of the first one, and `fill` writes in each of them its share of the rows.

        Raises:
            CxrError: the folder cannot be written and does not have the array, the disk is full, or the first process
                of the crew has a folder that this one does not see.
        """
        if plan.bytes > self.limit:
            log.warning(
                "%s would take %s on disk, cache.max_gb allows %s: not cached",
                plan.about,
                human_size(plan.bytes),
                human_size(self.limit),
            )
            return None
        try:
            return self._lead(plan, fill, crew) if crew.share.first else self._follow(plan, fill, crew)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not crew.share.first:
                raise CxrError(
                    f"{error.filename}: made by the first process of this machine, and not seen by this one; give all "
                    "of them a cache.dir that they share"
                ) from None
            raise CxrError(
                f"disk cache {self.folder}: {error.strerror or error}; free space, or set cache.dir or cache.max_gb"
            ) from None

    def _lead(self, plan: Plan, fill: Fill, crew: Crew) -> CachedArray:
        """Open the array or build it, as the first of a crew."""
        with self._locked(plan):
            array = self._open(plan)
            if array is None:
                array = self._build(plan, fill, crew)
            else:
                crew.from_first(None)
            crew.from_first(self.folder.resolve() / plan.name)
            crew.added(1)  # all have it open: from here on it may be evicted
            return array

    def _follow(self, plan: Plan, fill: Fill, crew: Crew) -> CachedArray:
        """Do what the first of the crew does: fill the scratch folder that it has made, if any, and open the array."""
        scratch: Path | None = crew.from_first(None)
        if scratch is not None:
            _fill(scratch, plan, fill, crew)
        folder: Path = crew.from_first(None)
        array = CachedArray(folder, plan)
        crew.added(1)
        return array

    @contextmanager
    def _locked(self, plan: Plan) -> Iterator[None]:
        """Hold the lock of an array; an array in a folder that cannot be written needs none."""
        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(self.folder / f".{plan.name}.lock"))
            except PermissionError:
                if not (self.folder / plan.name).is_dir():
                    raise
            yield

    def find(self, plan: Plan) -> CachedArray | None:
        """The array of `plan` if it is there and whole; nothing is built."""
        return self._open(plan)

    def _open(self, plan: Plan) -> CachedArray | None:
        folder = self.folder / plan.name
        if not (folder / FACTS).is_file():
            return None
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            whole = (folder / ROWS).stat().st_size == plan.bytes and sha256_of(folder / ROWS) == facts["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            log.warning("%s is damaged: built again", folder)
            return None
        with suppress(PermissionError):
            os.utime(folder / FACTS)  # for `_evict`: used now
        log.info("%s: reading %s, %s, from %s", plan.kind, plan.about, human_size(plan.bytes), folder)
        return CachedArray(folder, plan)

    def _build(self, plan: Plan, fill: Fill, crew: Crew) -> CachedArray:
        folder = self.folder / plan.name
        for leftover in self.folder.glob(f".{plan.name}-*"):  # of a killed process: we hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        self._evict(plan)
        log.info("%s: writing %s, %s, to %s", plan.kind, plan.about, human_size(plan.bytes), folder)
        scratch = Path(tempfile.mkdtemp(prefix=f".{plan.name}-", dir=self.folder))
        try:
            with (scratch / ROWS).open("wb") as file:
                file.truncate(plan.bytes)
            crew.from_first(scratch.resolve())
            _fill(scratch, plan, fill, crew)
            facts = {
                "format": FORMAT,
                "about": plan.about,
                "key": plan.key,
                "shape": list(plan.shape),
                "dtype": plan.dtype.str,
                "sha256": sha256_of(scratch / ROWS),
            }
            (scratch / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            publish(scratch, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return CachedArray(folder, plan)

    def _evict(self, plan: Plan) -> None:
        """Remove the least recently used arrays until `plan` fits."""
        entries = sorted(self.listed(), key=lambda entry: entry[2])
        excess = sum(size for _, size, _ in entries) + plan.bytes - self.limit
        for folder, size, _ in entries:
            if excess <= 0:
                return
            lock = FileLock(self.folder / f".{folder.name}.lock")
            with lock:  # nobody is building it; readers keep what they have mapped
                shutil.rmtree(folder, ignore_errors=True)
            log.info("removed %s (%s) to stay within cache.max_gb", folder.name, human_size(size))
            excess -= size

    def listed(self) -> Iterator[tuple[Path, int, float]]:
        """Folder, bytes and time of last use of every finished array."""
        for facts in self.folder.glob(f"*/{FACTS}"):
            try:
                yield facts.parent, (facts.parent / ROWS).stat().st_size, facts.stat().st_mtime
            except OSError:  # another process has just removed it
                continue

    def clear(self) -> int:
        """Remove every array and the leftovers of interrupted builds; returns the bytes freed.

        Anything else in the folder stays: an array that another process is building now, and files that are not ours,
        since it may be a folder of the user's own.
        """
        freed = 0
        if not self.folder.is_dir():
            return freed
        ours = {match[1] for path in self.folder.iterdir() if (match := _OURS.fullmatch(path.name))}
        for name in sorted(ours):
            lock = self.folder / f".{name}.lock"
            try:
                with FileLock(lock, timeout=0):
                    paths = [self.folder / name, *self.folder.glob(f".{name}-*"), lock]
                    freed += sum(_remove(path) for path in paths)
            except Timeout:
                log.info("%s is being written by another run: left as it is", name)
        with suppress(OSError):  # something else is in it
            self.folder.rmdir()
        return freed


def _remove(path: Path) -> int:
    """Remove a file or folder, which may be missing; returns its size."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return size


def _fill(scratch: Path, plan: Plan, fill: Fill, crew: Crew) -> None:
    """Write the own rows; returns when all rows are there, and raises `ValueError` if some were written by nobody."""
    written = 0

    def write(first: int, values: np.ndarray) -> None:
        nonlocal written
        _write(file, plan, first, values)
        written += len(values)

    # Written, not mapped: a full disk then raises an error instead of killing the process by a signal.
    with (scratch / ROWS).open("r+b") as file:
        crew.added(1)  # all have it open: if the first one fails, it removes the folder
        fill(write)
    if (total := crew.added(written)) != plan.shape[0]:
        raise ValueError(f"{plan.kind}: {total} of {plan.shape[0]} rows were written")


def _write(file: BinaryIO, plan: Plan, first: int, values: np.ndarray) -> None:
    if values.dtype != plan.dtype or values.shape[1:] != plan.shape[1:] or first + len(values) > plan.shape[0]:
        raise ValueError(f"{plan.kind}: rows {values.shape} {values.dtype} at {first} do not fit {plan.shape}")
    file.seek(first * (plan.bytes // plan.shape[0]))
    file.write(np.ascontiguousarray(values).data)


def human_size(size: int) -> str:
    """A number of bytes with its unit, such as `1.5 GB`."""
    for unit, name in ((GB, "GB"), (10**6, "MB"), (1000, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"
