"""A file or folder at a URL, read and written through fsspec; `cxr.common.storage` says where one may stand.

`Remote` has those members of `pathlib.Path` that readers of images, lists, tables and results need, under the same
names, so that most of them take either without asking which. Credentials come from where each library looks for them,
such as environment variables, and never from a URL.
"""

import io
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from cxr.common import remote_faults as faults
from cxr.common.ranges import Ranges
from cxr.errors import CxrError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger(__name__)

Content = bytes | Callable[[BinaryIO], object]  # the bytes of a file, or a function that writes into an open one
ATTEMPTS = 5  # of each request
WAIT_S = 0.5  # after the first fault; twice as long after each further one
CONNECTIONS = 16  # requests at once, where many images are read
_PART = 8 * 2**20  # bytes; what reading a file in order requests at once
# Botocore and s3fs do not try again by themselves, which nobody would count, and read an object by one request.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {"retries": {"total_max_attempts": 1}, "max_pool_connections": CONNECTIONS},
        "max_concurrency": 1,
    }
}
# Where the libraries keep what changes with the content, the surest first.
_IDENTITIES = ("ETag", "etag", "generation", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "modified")


@dataclass(frozen=True)
class Remote:
    """A file or folder at a URL such as `s3://bucket/folder`.

    Every request is tried up to `ATTEMPTS` times. What is not there raises `FileNotFoundError`, as a local file does.
    Whatever else stops a request (no package, no credentials, no connection) stops all others too and raises
    `CxrError`.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: object) -> "Remote":
        return Remote(f"{self.url.rstrip('/')}/{name}")

    @property
    def scheme(self) -> str:
        """`s3`, `gs` and so on."""
        return self.url.partition("://")[0]

    @property
    def top(self) -> "Remote":
        """The bucket, container or server that has the file."""
        return Remote("/".join(self.url.split("/")[:3]))

    @property
    def name(self) -> str:
        """The last part of the path; empty for the top."""
        return PurePosixPath(self.url.removeprefix(self.top.url)).name

    @property
    def suffix(self) -> str:
        """The name from its last dot on."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "Remote":
        """The folder above; that of the top is the top."""
        return Remote(self.url.rpartition("/")[0]) if self.name else self

    def with_name(self, name: str) -> "Remote":
        """A file beside this one."""
        return self.parent / name

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        return self._kind() is not None

    def is_dir(self) -> bool:
        """Whether there is a folder, which for most stores is the beginning of names."""
        return self._kind() == "directory"

    def is_file(self) -> bool:
        """Whether there is a file."""
        return self._kind() == "file"

    def size(self) -> int | None:
        """Bytes of a file; None if there is none. Of a listing before, this costs no request."""
        try:
            info = self._call("info", self._key)
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def read_bytes(self, start: int = 0, end: int | None = None) -> bytes:
        """The content, or a part of it; a part that begins behind the end is empty."""
        if not start and end is None:
            return self._call("cat_file", self._key)
        try:
            return self._call("cat_file", self._key, start=start, end=end)
        except faults.EmptyRangeError:
            return b""

    def read_text(self, encoding: str = "utf-8") -> str:
        """The content as text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The content as a file; what is read of it is requested then, in large parts."""
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: expected 'rb'")
        return io.BufferedReader(Ranges(self.read_bytes, int(self._info()["size"])), _PART)

    def listed(self) -> dict[str, tuple[int, str]]:
        """Size and identity (see `identity`) of all files below a folder, by their path relative to it, POSIX."""
        self._forget()
        key, found = self._key, self._call("find", self._key, detail=True)
        infos = {name.removeprefix(key).lstrip("/"): info for name, info in found.items()}
        return {name: (int(info.get("size") or 0), _identity(info)) for name, info in sorted(infos.items()) if name}

    def identity(self) -> str:
        """Size, and checksum, version or time as the store keeps it: another content has another identity."""
        info = self._info()
        return f"{info.get('size')} {_identity(info)}"

    def names(self) -> set[str]:
        """Names in a folder; none if it does not exist."""
        self._forget()
        try:
            return {PurePosixPath(name).name for name in self._call("ls", self._key, detail=False)}
        except FileNotFoundError:
            return set()

    def write(self, content: Content) -> None:
        """Write a file completely or not at all.

        Raises:
            CxrError: it cannot be written, for example because there is no such bucket.
        """
        if self.scheme == "hdfs":  # the others show a file once all of it is there
            self._call("makedirs", self.parent._key, exist_ok=True)
            half = self.with_name(f".{self.name}.half")
            half._put(content)
            self._call("mv", half._key, self._key)
        else:
            self._put(content)

    def remove(self, names: set[str]) -> None:
        """Remove files of a folder."""
        keys = [(self / name)._key for name in sorted(names)]
        for group in [[key] for key in keys] if self.scheme == "hdfs" else [keys] if keys else []:
            with suppress(FileNotFoundError):  # a request that is tried again may have removed some
                self._call("rm", group[0] if len(group) == 1 else group)

    def why_missing(self) -> str:
        """What to say of a place where nothing is."""
        return "does not exist" if self.top == self or self.top.exists() else f"does not exist, nor does {self.top}"

    @property
    def _key(self) -> str:
        """The path as the file system names it."""
        return _file_system(self.top.url)._strip_protocol(self.url)

    def _info(self) -> dict[str, Any]:
        self._forget()
        return self._call("info", self._key)

    def _kind(self) -> str | None:
        try:
            return self._info()["type"]
        except FileNotFoundError:
            return None

    def _put(self, content: Content) -> None:
        if isinstance(content, bytes):
            self._send("pipe_file", self._key, content)
            return
        with tempfile.TemporaryDirectory(prefix="cxr-") as folder:  # as a file, it can be sent again
            file = Path(folder, "content")
            with file.open("wb") as opened:
                content(opened)
            self._send("put_file", str(file), self._key)

    def _send(self, method: str, *args: Any) -> None:
        try:
            self._call(method, *args)
        except FileNotFoundError:
            raise CxrError(f"{self}: cannot be written, {self.top} does not exist; make it or give another") from None

    def _forget(self) -> None:
        """Drop the listings that the file system keeps: others may have written."""
        _file_system(self.top.url).invalidate_cache()

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call a method of the file system, again after a fault that may pass."""
        call = getattr(_file_system(self.top.url), method)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call(*args, **options)
            except Exception as error:
                if (told := faults.told(error, self.url, self.scheme)) is not None:
                    raise told from None
                if not faults.may_pass(error):
                    raise
                reason = faults.reason(error)
            if attempt < ATTEMPTS:
                log.debug("%s: %s; attempt %d of %d follows", self.url, reason, attempt + 1, ATTEMPTS)
                _RETRIES.add()
                time.sleep(WAIT_S * 2 ** (attempt - 1))
        raise CxrError(
            f"{self}: {ATTEMPTS} attempts failed, the last with: {reason}; start again when the store answers"
        )


def take_retries() -> int:
    """How many requests were tried again since this was last asked, in this process."""
    return _RETRIES.take()


class _Retries:
    """A number that several threads raise."""

    def __init__(self) -> None:
        self._count, self._lock = 0, threading.Lock()

    def add(self) -> None:
        with self._lock:
            self._count += 1

    def take(self) -> int:
        with self._lock:
            count, self._count = self._count, 0
        return count


_RETRIES = _Retries()


def _identity(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in _IDENTITIES if info.get(name) is not None), "")


@cache
def _file_system(top: str) -> "AbstractFileSystem":
    """The file system of a bucket, container or server."""
    scheme = top.partition("://")[0]
    for name in faults.LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        from fsspec.core import url_to_fs

        system, _ = url_to_fs(top, skip_instance_cache=True, **_OPTIONS.get(scheme, {}))
    except Exception as error:
        if (told := faults.told(error, top, scheme)) is None:
            raise
        raise told from None
    if scheme == "s3":
        system.retries = 1  # see `_OPTIONS`
    return system
