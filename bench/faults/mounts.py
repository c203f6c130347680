"""Small disks that can be filled and made read-only, for this process and those it starts."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BALLAST = "ballast"


class CannotMountError(Exception):
    """This process may not mount disks."""


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of that size at `folder`, which may exist; raises `CannotMountError` where none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mount = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False) if shutil.which("mount") else None
    if mount is None or mount.returncode:
        reason = mount.stderr.strip() if mount else "there is no command `mount`"
        raise CannotMountError(f"a small disk cannot be mounted here: {reason}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left: int = 0) -> None:
    """Fill a disk up to the last `left` bytes."""
    with (disk / BALLAST).open("wb", buffering=0) as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - left)))


def make_room(disk: Path) -> None:
    """Remove what `fill` has written."""
    (disk / BALLAST).unlink(missing_ok=True)


def read_only(disk: Path, *, on: bool = True) -> None:
    """Make a disk read-only or writable, open files notwithstanding."""
    subprocess.run(["mount", "-o", f"remount,bind,{'ro' if on else 'rw'}", str(disk)], check=True)
