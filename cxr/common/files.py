"""Files that must be whole or absent: atomic writing and checksums."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from cxr.errors import CxrError


def write_atomic(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write `content` (bytes, or what a function writes into the open file) so that `path` is old or new, never half.

    Raises `CxrError` where the file cannot be written (full disk, no permission); an older file is then untouched.
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
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        raise CxrError(
            f"{path}: cannot be written ({error.strerror or error}); make room or use another place"
        ) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest(*modules: ModuleType) -> str:
    """SHA-256 over the sources of some modules: what they compute is known to be the same while it is."""
    return hashlib.sha256(b"\0".join(Path(module.__file__).read_bytes() for module in modules)).hexdigest()


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
