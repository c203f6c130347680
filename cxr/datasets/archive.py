"""Unpacking of untrusted zip archives: no path traversal, no zip bombs, all of the images and tables or none."""

import logging
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from cxr.common.files import publish, sha256_of, write_atomic
from cxr.common.locks import alone
from cxr.datasets import tables
from cxr.errors import CxrError
from cxr.imaging.decode import SUFFIXES

log = logging.getLogger(__name__)

MAX_BYTES = 20 * 2**30  # of all that is unpacked; the original dataset has 1.2 GB
MAX_RATIO = 200  # unpacked to packed size; images are compressed already, and tables take little beside them
MAX_MEMBERS = 200_000
SCRATCH = ".unpack-"  # beginning of the names of folders that are being filled
DONE = ".complete"  # file that marks a folder as completely unpacked
_WITH_TABLES = b"with tables"  # how its content ends, but in folders of earlier versions, which have no tables
_REMEDY = "do not trust this archive, get another copy"


class DamagedArchiveError(CxrError):
    """An archive that is not a zip, or is truncated or damaged."""


def unpack(archive: Path, cache: Path) -> tuple[Path, str]:
    """Unpack the images and tables of a zip archive into a folder of `cache`, once per content.

    Returns:
        The folder and the SHA-256 of the archive.

    Raises:
        CxrError: the archive is damaged, encrypted, too large or holds no images, a member is unsafe, or `cache` cannot
            be written.
    """
    digest = sha256_of(archive)
    target = cache / f"{archive.stem[:40]}-{digest[:12]}"
    try:
        if not _is_complete(target):
            cache.mkdir(parents=True, exist_ok=True)
            with alone(cache / f".{target.name}.lock"):
                if not _is_complete(target):  # otherwise another process was faster
                    count = _unpack_into(target, archive, digest)
                    log.info("unpacked %d files into %s", count, target)
                    return target, digest
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise DamagedArchiveError(
            f"{archive} is not a zip archive, or is truncated or damaged ({error}); download it again"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise CxrError(
            f"{archive} cannot be unpacked into {cache}: {reason}; make room there or set data.cache_dir"
        ) from None
    log.info("using the unpacked images in %s", target)
    return target, digest


def _is_complete(target: Path) -> bool:
    marker = target / DONE
    return marker.is_file() and marker.read_bytes().endswith(_WITH_TABLES)


def _unpack_into(target: Path, archive: Path, digest: str) -> int:
    """Unpack into a scratch folder that then becomes `target`; returns the number of files. The lock must be held."""
    prefix = f"{SCRATCH}{target.name}-"
    for leftover in [path for path in target.parent.iterdir() if path.name.startswith(prefix)]:  # of a killed process
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        with zipfile.ZipFile(archive) as packed:
            members = _checked(packed, archive)
            for member in tqdm(members, desc="unpacking", unit="file", disable=None, leave=False):
                packed.extract(member, scratch)
        write_atomic(scratch / DONE, digest.encode() + b" " + _WITH_TABLES)
        if target.exists():
            shutil.rmtree(target)  # incomplete: without tables, or something has removed its marker
        publish(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return len(members)


def _checked(packed: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """Check all members and list the images and tables among them."""
    members = packed.infolist()
    if len(members) > MAX_MEMBERS:
        raise CxrError(f"{archive} has {len(members):,} members; expected at most {MAX_MEMBERS:,}")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise CxrError(f"{archive}: member {member.filename!r} lies outside the target folder; {_REMEDY}")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise CxrError(f"{archive}: member {member.filename!r} is a link; {_REMEDY}")
        if member.flag_bits & 1:
            raise CxrError(f"{archive} is encrypted; unpack it yourself and give the folder")
    wanted = [member for member in members if _suffix(member) in (*SUFFIXES, *tables.SUFFIXES)]
    size = sum(member.file_size for member in wanted)
    if size > MAX_BYTES or size > MAX_RATIO * max(1, sum(member.compress_size for member in wanted)):
        raise CxrError(
            f"{archive} would unpack to {size:,} bytes; expected at most {MAX_BYTES:,}, and at most {MAX_RATIO} times "
            f"the packed size; {_REMEDY}"
        )
    if not any(_suffix(member) in SUFFIXES for member in wanted):
        raise CxrError(f"{archive} holds no images; expected {', '.join(SUFFIXES)} files")
    return wanted


def _suffix(member: zipfile.ZipInfo) -> str:
    """The suffix of a file, in lower case; empty for folders and hidden files."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    hidden = "__MACOSX" in path.parts or path.name.startswith(".")
    return "" if member.is_dir() or hidden else path.suffix.lower()
