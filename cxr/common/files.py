"""Atomic writing of files and folders, and checksums.

What is written here is whole or absent, even if the machine loses power: data reaches the disk before the name that it
is found by, and the name before the caller goes on.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from cxr.errors import CxrError

_HALF = ".half"  # end of the name of a file that is still being written


def write_atomic(path: str | Path, content: bytes | Callable[[BinaryIO], object], *, mode: int | None = None) -> None:
    """Write a file completely or not at all; on failure, an existing file is left unchanged.

    Once this returns, the new file survives a power failure.

    Args:
        path: the file; missing parent folders are created.
        content: bytes, or a function that writes into the open file.
        mode: permissions of the file, which never has wider ones; None for those of any new file.

    Raises:
        CxrError: the file cannot be written, for example because the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        make_folder(path.parent)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_HALF, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask() if mode is None else mode)
        Path(temporary).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise CxrError(
            f"{path}: cannot be written ({error.strerror or error}); make room or use another folder"
        ) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def publish(scratch: Path, target: Path) -> None:
    """Give a finished file or folder its name; with that name, it is whole even after a power failure.

    A file replaces `target`; for a folder, `target` must not exist or be empty.

    Args:
        scratch: file or folder on the same file system as `target`; nobody writes into it any more.
        target: its name.

    Raises:
        OSError: it cannot be renamed, or the disk failed.
    """
    if scratch.is_dir():
        for place, _, names in os.walk(scratch):
            for name in names:
                _sync_file(Path(place, name))
            sync_folder(Path(place))
        scratch.rename(target)
    else:
        _sync_file(scratch)
        scratch.replace(target)
    sync_folder(target.parent)


def remove_folder(folder: Path, prefix: str) -> None:
    """Remove a folder of which a part must never be taken for the whole, however removing it ends.

    It first gets another name beside its own that starts with `prefix`. A folder that cannot be renamed stays as it is.
    """
    try:
        away = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    except OSError:
        return
    with suppress(OSError):
        folder.rename(away / folder.name)
        sync_folder(folder.parent)
    shutil.rmtree(away, ignore_errors=True)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder, with `mode`, and its parents where they are missing; they survive a power failure."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(mode, parents=True, exist_ok=True)
    for place in missing:
        sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk."""
    if os.name == "nt":  # folders cannot be opened there, and NTFS keeps the order of renamings by itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(handle)


def remove_half_written(folder: str | Path) -> None:
    """Remove what `write_atomic` left below a folder when it was killed. Nobody may be writing there any more."""
    for path in Path(folder).rglob(f".*{_HALF}"):
        path.unlink(missing_ok=True)


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(file: Path, wanted: str, *, owner: str, config: str, remedy: str) -> None:
    """Raise `CxrError` unless a file has the SHA-256 that `config`, the file beside it, names.

    `owner` begins the error, and what to do, `remedy`, ends it.
    """
    if sha256_of(file) != wanted:
        raise CxrError(f"{owner}: {file.name} is not the one that {config} names (truncated or replaced); {remedy}")


def sha256_of_text(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _sync_file(file: Path) -> None:
    with file.open("r+b") as opened:  # Windows syncs only what is open for writing
        os.fsync(opened.fileno())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
