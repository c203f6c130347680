"""Full and read-only disks, and a locked SQLite store: recognised behind any exception, and told in one line.

The line names the folder, or the store.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cxr.errors import CxrError

_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# MLflow and other libraries keep only the text of an error that they wrap.
_OF_SYSTEM = re.compile(
    rf"\[Errno (?:{'|'.join(map(str, _ERRNOS))})\] ([^:'\"\n]+)(?:: '([^'\n]+)'(?: -> '([^'\n]+)')?)?"
)
_OF_SQLITE = re.compile(r"database or disk is full|attempt to write a readonly database|disk I/O error")
_NOT_OPENED, _LOCKED = "unable to open database file", "database is locked"


class UnreachableError(CxrError):
    """The store or a disk could not be reached, read or written: that says nothing about what is kept there."""


@dataclass(frozen=True)
class Place:
    """A folder that a step writes to: what it is for, and what to do where it cannot be written."""

    what: str
    folder: Path
    way_out: str


def temporary() -> Place:
    """The folder for temporary files."""
    return Place(
        "the folder for temporary files",
        Path(tempfile.gettempdir()),
        "make room there, or set TMPDIR to another folder",
    )


def log_dir(folder: Path) -> Place:
    """The folder of the log files that all steps share."""
    return Place("log_dir", folder, "make room there, or give another folder: -P log_dir=FOLDER")


def told(place: Place, reason: str) -> UnreachableError:
    """The error of a place that cannot be written."""
    return UnreachableError(f"{place.what} {place.folder} cannot be written ({reason}); {place.way_out}")


def problem(error: BaseException, store: str, places: list[Place]) -> UnreachableError | None:
    """The full or read-only disk, or locked database, behind `error`, in one line; None if something else is.

    Args:
        error: any exception; what it was raised from counts as well.
        store: tracking URI of the MLflow store.
        places: folders that the step writes to.
    """
    for cause in _chain(error):
        if match := _OF_SQLITE.search(str(cause)):
            return UnreachableError(
                f"the MLflow store {store} cannot be written ({match[0]}); make room there, or make it writable"
            )
        if _NOT_OPENED in str(cause):
            way_out = "its folder must exist and be writable"
            return UnreachableError(f"the MLflow store {store} cannot be used ({_NOT_OPENED}); {way_out}")
        if _LOCKED in str(cause):
            way_out = "start again later"
            return UnreachableError(f"the MLflow store {store} is in use by another program ({_LOCKED}); {way_out}")
        if isinstance(cause, OSError) and cause.errno in _ERRNOS:
            return told(_place(cause.filename2 or cause.filename, places), os.strerror(cause.errno))
        if match := _OF_SYSTEM.search(str(cause)):
            return told(_place(match[3] or match[2], places), match[1])
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The exception, and those that it was raised from or while handling."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _place(path: str | bytes | int | None, places: list[Place]) -> Place:
    """The place that holds `path`; a write names no file, and is told by the disk with the least room."""
    if isinstance(path, str | bytes):
        file = Path(os.fsdecode(path))
        holders = [place for place in places if file.is_relative_to(place.folder)]
        return max(holders, key=lambda place: len(place.folder.parts), default=Place("file", file, "make room there"))
    present = [place for place in places if place.folder.exists()]
    return min(present, key=lambda place: shutil.disk_usage(place.folder).free, default=temporary())
