"""The files that a batch prediction scores: all images below a folder, or the lines of a list, local or remote."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from cxr.common import storage
from cxr.common.remote import CONNECTIONS, Remote
from cxr.common.storage import Place
from cxr.errors import CxrError
from cxr.imaging import dicom
from cxr.imaging.decode import SUFFIXES

_DICOM_START = 132  # bytes: the preamble, and the four letters after it


def list_files(source: Place) -> list[str]:
    """Paths or URLs of the files to score: all images below a folder, sorted, or the lines of a list file, in order.

    DICOM files without a suffix, as archives leave them, are recognised by their content. Paths in a list file are
    relative to its folder.

    Raises:
        CxrError: there are no images, or the list cannot be read or has a URL that cannot be used.
    """
    if source.is_dir():
        paths = sorted(_images_below(source))
        if not paths:
            raise CxrError(f"input={source}: no images below it ({', '.join(SUFFIXES)}, or DICOM without a suffix)")
        return paths
    if not source.is_file():
        why = storage.why_missing(source)
        raise CxrError(f"input={source} {why}; give a folder, or a file with one path per line")
    if source.suffix.lower() in SUFFIXES:
        return [str(source)]
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()  # editors of Windows begin it with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise CxrError(f"input={source}: not a list of paths ({error}); write one path per line, in UTF-8") from None
    paths = [str(storage.under(source.parent, line.strip(), "input")) for line in lines if line.strip()]
    if not paths:
        raise CxrError(f"input={source}: the list is empty; write one path per line")
    return paths


def is_dicom_file(file: Place) -> bool:
    """Whether a file can be read and begins like a DICOM file."""
    try:
        return dicom.is_dicom(storage.read(file, _DICOM_START))
    except OSError:
        return False


def read_file(path: str, max_bytes: int) -> tuple[bytes | None, str]:
    """The bytes of a file, one more than `max_bytes` at most, or why it cannot be read.

    Raises:
        CxrError: its store cannot be reached; that is no fault of the file.
    """
    try:
        return storage.read(storage.place(path), max_bytes + 1), ""
    except (OSError, ValueError) as error:
        return None, getattr(error, "strerror", None) or str(error)


def identities(paths: list[str]) -> list[str]:
    """What tells the content of each file from another (see `storage.identity`); empty for what is not there.

    Raises:
        CxrError: a store cannot be reached.
    """
    if not any(isinstance(storage.place(path), Remote) for path in paths):
        return [_identity(path) for path in paths]
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(_identity, paths))


def _identity(path: str) -> str:
    try:
        return storage.identity(storage.place(path))
    except (OSError, ValueError):  # `read_file` tells why
        return ""


def _images_below(folder: Place) -> list[str]:
    paths = [path for path in storage.below(folder) if not path.rpartition("/")[2].startswith(".")]
    is_image = partial(_is_image, folder)
    if isinstance(folder, Remote):
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            chosen: Iterable[bool] = list(threads.map(is_image, paths))
    else:
        chosen = map(is_image, paths)
    return [str(folder / path) for path, keep in zip(paths, chosen, strict=True) if keep]


def _is_image(folder: Place, path: str) -> bool:
    file = folder / path
    suffix = file.suffix.lower()
    return suffix in SUFFIXES or ((not suffix or suffix[1:].isdigit()) and is_dicom_file(file))
