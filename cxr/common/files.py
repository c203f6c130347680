"""Atomic file writing and checksums."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from cxr.errors import CxrError


def write_atomic(path: str | Path, content: bytes | Callable[[BinaryIO], object], *, mode: int | None = None) -> None:
    """Write a file completely or not at all; on failure, an existing file is left unchanged.

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
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask() if mode is None else mode)
        Path(temporary).replace(path)
    except OSError as error:
        raise CxrError(
            f"{path}: cannot be written ({error.strerror or error}); make room or use another folder"
        ) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
