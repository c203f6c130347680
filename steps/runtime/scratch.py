"""Scratch folder of a step: removed when the step ends, and by the next step if the process was killed.

The folder is locked for as long as the step works in it, so that a folder without a lock has no owner any more.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cxr.errors import CxrError

PREFIX = "cxr-step-"


@contextmanager
def folder(step: str) -> Iterator[Path]:
    """A new, locked folder in the folder for temporary files; it is removed at the end of the block.

    Raises:
        CxrError: the folder for temporary files cannot be written.
    """
    path, lock = _create(step)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def remove_abandoned() -> list[Path]:
    """Remove scratch folders of this user whose process is gone; returns them."""
    removed = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # another user's, no folder, or just removed
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
        except OSError:  # in use
            continue
        finally:
            os.close(lock)
    return removed


def _create(step: str) -> tuple[Path, int]:
    """A new folder, and the open file that holds its lock."""
    wanted = os.environ.get("TMPDIR")
    try:
        # Python goes to another folder where TMPDIR cannot be written, and at last to the working directory.
        if wanted and not Path(wanted).samefile(tempfile.gettempdir()):
            raise CxrError(f"TMPDIR={wanted} is full or read-only; make room there, or set TMPDIR to another folder")
        while True:
            path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{step}-"))
            with suppress(FileNotFoundError):  # removed by another step, before it was locked
                lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(lock, fcntl.LOCK_EX)
                if path.exists():
                    return path, lock
                os.close(lock)
    except OSError as error:
        raise CxrError(
            f"no folder for temporary files can be written ({error}); make room, or set TMPDIR to a folder with room"
        ) from None
