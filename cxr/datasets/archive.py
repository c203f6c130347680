"""Unpacking archives that nobody vouches for: no path escapes, no bombs, whole or not at all."""

import logging
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from cxr.common.files import sha256_of, write_atomic
from cxr.errors import CxrError
from cxr.imaging.decode import SUFFIXES

log = logging.getLogger("cxr.datasets.archive")

MAX_BYTES = 20 * 2**30  # unpacked, in all; the original set is 1.2 GB
MAX_RATIO = 200  # unpacked to packed; pictures hardly shrink
MAX_MEMBERS = 200_000
DONE = ".complete"


def unpack(archive: Path, cache: Path) -> tuple[Path, str]:
    """Unpack the images of a `.zip` into `cache`, once per content; returns the folder and the archive's SHA-256.

    Raises `CxrError` for what is no zip, cut off, encrypted, too large unpacked, or tries to leave its folder.
    """
    digest = sha256_of(archive)
    target = cache / f"{archive.stem[:40]}-{digest[:12]}"
    if (target / DONE).is_file():
        log.info("unpacked before: %s", target)
        return target, digest
    scratch = None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".unpack-", dir=cache))
        with zipfile.ZipFile(archive) as packed:
            members = _checked(packed, archive)
            for member in tqdm(members, desc="unpacking", unit="image", disable=None, leave=False):
                packed.extract(member, scratch)
        write_atomic(scratch / DONE, digest.encode())
        if target.exists():
            shutil.rmtree(target)  # left over from an attempt that was cut off
        scratch.rename(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise CxrError(f"{archive} is no zip archive, or cut off or damaged ({error}); fetch it again") from None
    except OSError as error:
        reason = error.strerror or error
        raise CxrError(f"{archive} cannot be unpacked into {cache}: {reason}; make room there") from None
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
    log.info("unpacked %d images into %s", len(members), target)
    return target, digest


def _checked(packed: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """The members to unpack, after a look at every one of them."""
    members = packed.infolist()
    if len(members) > MAX_MEMBERS:
        raise CxrError(f"{archive} has {len(members):,} members; at most {MAX_MEMBERS:,} are unpacked")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise CxrError(f"{archive}: member {member.filename!r} would leave the folder; this archive is not trusted")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise CxrError(f"{archive}: member {member.filename!r} is a link; this archive is not trusted")
        if member.flag_bits & 1:
            raise CxrError(f"{archive} is encrypted; unpack it and give the folder")
    images = [m for m in members if _is_image(m)]
    size = sum(m.file_size for m in images)
    if size > MAX_BYTES or size > MAX_RATIO * max(1, sum(m.compress_size for m in images)):
        raise CxrError(f"{archive} would unpack to {size:,} bytes, out of proportion; this archive is not trusted")
    if not images:
        raise CxrError(f"{archive} holds no images ({', '.join(SUFFIXES)})")
    return images


def _is_image(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    junk = "__MACOSX" in path.parts or path.name.startswith(".")
    return not member.is_dir() and not junk and path.suffix.lower() in SUFFIXES
