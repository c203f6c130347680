"""The folder in which the processes of one server count together.

`prometheus_client` adds up the files that several processes keep in the folder of `PROMETHEUS_MULTIPROC_DIR`, and reads
that variable when it is imported: join first. The folder is made by the first process and removed by the last. What
was counted by a process that was killed stays counted; what it was working on does not (`Crew.bury`). A process is
known to live by a lock on a file of its own, which the system takes from it when it ends, however it ends.
"""

import contextlib
import fcntl
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr.errors import CxrError

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_ALIVE = ".alive"  # suffix of the file that a process holds a lock on


class Crew:
    """A process among those of one server, and their folder.

    Args:
        base: folder for temporary files.
        server: process ID of the parent of them all.
        worker: process ID of this one.
    """

    def __init__(self, base: Path, server: int, worker: int):
        self._base, self._worker = base, worker
        self.folder = base / f"{_prefix()}{server}"
        with _locked(base):
            _sweep(base)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            facts = self.folder.lstat()
            if self.folder.is_symlink() or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
                raise CxrError(f"{self.folder} belongs to somebody else; remove it, or set TMPDIR to another folder")
            # A locked folder is also left alone by those who tidy temporary folders.
            self._held = [_lock(self.folder, fcntl.LOCK_SH), _lock(self._mark(worker), fcntl.LOCK_EX)]
        os.environ[VARIABLE] = str(self.folder)

    def reserve(self) -> None:
        """Take the room of the files now: writing to a mapped file on a full disk would end the process."""
        for file in self.folder.glob(f"*_{self._worker}.db"):
            with file.open("r+b") as opened:
                try:
                    os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
                except OSError as error:
                    raise CxrError(f"{file}: no room to count requests ({error.strerror}); set TMPDIR") from None

    def bury(self) -> None:
        """Forget what processes that are gone were working on."""
        for mark in self.folder.glob(f"*{_ALIVE}"):
            worker = int(mark.stem)
            if worker != self._worker and _is_free(mark):
                _forget(self.folder, worker)
                mark.unlink(missing_ok=True)

    def leave(self) -> None:
        """Forget this process, and remove the folder with the last."""
        with _locked(self._base):
            _forget(self.folder, self._worker)
            self._mark(self._worker).unlink(missing_ok=True)
            for held in self._held:
                os.close(held)
            if _is_free(self.folder):
                shutil.rmtree(self.folder, ignore_errors=True)

    def _mark(self, worker: int) -> Path:
        return self.folder / f"{worker}{_ALIVE}"


def join() -> Crew | None:
    """Join the other processes of this server; None if it has one process, which counts for itself."""
    parent = multiprocessing.parent_process()  # uvicorn starts several processes with this module
    if parent is None or parent.pid is None:
        os.environ.pop(VARIABLE, None)
        return None
    return Crew(Path(tempfile.gettempdir()), parent.pid, os.getpid())


def _prefix() -> str:
    return f"cxr-metrics-{os.getuid()}-"


def _forget(folder: Path, worker: int) -> None:
    for file in folder.glob(f"gauge_live*_{worker}.db"):
        file.unlink(missing_ok=True)


def _sweep(base: Path) -> None:
    """Remove the folders of servers of this user that were killed."""
    for folder in base.glob(f"{_prefix()}*"):
        if folder.is_dir() and not folder.is_symlink() and _is_free(folder):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(base: Path) -> Iterator[None]:
    held = _lock(base / f"cxr-metrics-{os.getuid()}.lock", fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(held)


def _lock(path: Path, how: int) -> int:
    """A descriptor that holds a lock on a folder, or on a file that is made if absent, until it is closed."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    opened = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(opened, how)
    except OSError:
        os.close(opened)
        raise
    return opened


def _is_free(path: Path) -> bool:
    """Whether nobody holds a lock on a file or folder that exists."""
    with contextlib.suppress(OSError):
        os.close(_lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
        return True
    return False
