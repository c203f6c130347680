"""Where images, lists, tables and results are: at a local path, or at a URL that fsspec reads.

A `Place` is a plain `pathlib.Path` or a `Remote` with the same members. Local paths stay what they were, since a layer
over each read of each image would cost time and hide what happens; universal_pathlib, which wraps both, leaves every
request to itself, while here each is tried again, counted, and told in one line. Functions below do what differs.
"""

import hashlib
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from urllib.request import url2pathname

from cxr.common import files
from cxr.common.remote import Content, Remote
from cxr.common.remote_faults import CREDENTIALS
from cxr.errors import CxrError

Place = Path | Remote

SCHEMES = ("s3", "gs", "abfs", "hdfs", "file")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://([^/]*)(.*)", re.IGNORECASE | re.DOTALL)
_WITH_USERS = ("abfs", "hdfs")  # abfs://CONTAINER@ACCOUNT.dfs.core.windows.net, hdfs://USER@HOST:PORT


def given(text: str, parameter: str) -> Place:
    """The place that a user names by `parameter`: a path, in which `~` is the home folder, or a URL.

    Raises:
        CxrError: the URL has an unknown scheme or no bucket, or holds a secret, which is not repeated.
    """
    match = _URL.match(text)
    if match is None:
        return Path(text).expanduser()
    scheme, host, path = match[1].lower(), match[2], match[3]
    if scheme not in SCHEMES:
        expected = ", ".join(f"{name}://" for name in SCHEMES)
        raise CxrError(f"{parameter}: unknown scheme {scheme}://; expected a path, or a URL with {expected}")
    if _holds_secret(scheme, host, path):
        raise CxrError(
            f"{parameter}: the URL holds a user, a password or a signature, which MLflow has noted if it was given by "
            f"-P; change the secret, and give a plain URL and {CREDENTIALS.get(scheme, 'no secret')} in the environment"
        )
    if scheme == "file":
        if host not in ("", "localhost"):
            raise CxrError(f"{parameter}={text}: names the host {host}; expected file:///PATH, on this machine")
        return Path(url2pathname(unquote(path)))
    if not host and scheme != "hdfs":
        raise CxrError(f"{parameter}={text}: names no bucket; expected {scheme}://BUCKET/PATH")
    path = posixpath.normpath("/" + path.strip("/"))
    return Remote(f"{scheme}://{host}{path}".rstrip("/") if host else f"{scheme}://{path}")


def local(text: str, parameter: str) -> Path:
    """The path that a user names by `parameter`, which must be on this machine; raises `CxrError` for another URL."""
    found = given(text, parameter)
    if isinstance(found, Remote):
        raise CxrError(f"{parameter}={text}: expected a path on this machine")
    return found


def place(text: str) -> Place:
    """The place that `str` made `text` of."""
    return Remote(text) if _URL.match(text) else Path(text)


def under(folder: Place, name: str, parameter: str) -> Place:
    """The place that a user in `folder` means by `name`: a URL, an absolute path, or one below the folder."""
    path = Path(name).expanduser() if name.startswith("~/") else Path(name)
    if _URL.match(name) or (isinstance(folder, Remote) and not path.is_absolute()):
        return given(name if _URL.match(name) else f"{folder}/{name}", parameter)
    return folder / path if isinstance(folder, Path) else path


def is_download(text: str) -> bool:
    """Whether `text` is the address of an archive, which is downloaded before anything is read of it."""
    return text.startswith(("http://", "https://"))


def read(file: Place, limit: int) -> bytes:
    """The first `limit` bytes of a file."""
    if isinstance(file, Remote):
        return file.read_bytes(0, limit)
    with file.open("rb") as opened:
        return opened.read(limit)


def size(file: Place) -> int | None:
    """Bytes of a file; None if there is none."""
    if isinstance(file, Remote):
        return file.size()
    return file.stat().st_size if file.is_file() else None


def identity(file: Place) -> str:
    """What tells the content of a file from another without reading it: its size and when it was changed.

    In remote storage this is what the store keeps of it (see `Remote.identity`), and costs a request.
    """
    if isinstance(file, Remote):
        return file.identity()
    known = file.stat()
    return f"{known.st_size} {known.st_mtime_ns}"


def sha256_of(file: Place) -> str:
    """The SHA-256 of a file in hex."""
    if isinstance(file, Remote):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    return files.sha256_of(file)


def below(folder: Place) -> Iterator[str]:
    """Paths of all files below a folder, relative to it, POSIX; not those in hidden folders and in `__MACOSX`."""
    if isinstance(folder, Remote):
        for path in folder.listed():
            if not any(map(_is_left_out, path.split("/")[:-1])):
                yield path
        return
    for above, folders, names_ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_left_out(name))
        relative = Path(above).relative_to(folder).as_posix()
        yield from names_ if relative == "." else (f"{relative}/{name}" for name in names_)


def names(folder: Place) -> set[str]:
    """Names in a folder; none if it does not exist."""
    if isinstance(folder, Remote):
        return folder.names()
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def write(file: Place, content: Content) -> None:
    """Write a file completely or not at all (see `write_atomic`); raises `CxrError` if it cannot be written."""
    if isinstance(file, Remote):
        file.write(content)
    else:
        files.write_atomic(file, content)


def why_missing(file: Place) -> str:
    """What to say of a place where nothing is."""
    return file.why_missing() if isinstance(file, Remote) else "does not exist"


def _is_left_out(folder: str) -> bool:
    return folder == "__MACOSX" or folder.startswith(".")


def _holds_secret(scheme: str, host: str, path: str) -> bool:
    """Whether a URL has a user with a password, or a query, as signed URLs have.

    A password may hold a slash, so that a colon alone shows that a part of the host is one.
    """
    user, _, server = host.rpartition("@")
    has_port = scheme == "hdfs" and re.search(r":\d+$", server) is not None
    return (
        re.search(r"\?[^/]*=", path) is not None
        or (user != "" and (scheme not in _WITH_USERS or ":" in user))
        or (":" in server and not has_port)
    )
