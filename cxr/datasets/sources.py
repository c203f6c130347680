"""Where X-rays come from: a folder, a zip, an address, the Mendeley archive, or drawn phantoms.

`fetch` turns any of them into a folder of images. Downloads and unpacked archives stay in the cache folder.
"""

import logging
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm

from cxr.datasets import archive, phantom
from cxr.errors import CxrError
from cxr.settings.schema import DataSettings

log = logging.getLogger("cxr.datasets.sources")

MENDELEY = (
    "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/f12eaf6d-6023-432f-acc9-80c9d7393433/"
    "file_downloaded"
)
MENDELEY_NAME = "ChestXRay2017.zip"
MENDELEY_SHA256 = "13efc055629733dbab07877f8b3c9f81097840dbcdaa326a8542322c2281ce36"
CITATION = (
    "D. Kermany, K. Zhang, M. Goldbaum, Labeled Optical Coherence Tomography (OCT) and Chest X-Ray Images for "
    "Classification, Mendeley Data, V2 (2018), doi:10.17632/rscbjbr9sj.2, CC BY 4.0"
)
TIMEOUT_S = (10, 60)  # to connect, and between two pieces of a download
CHUNK = 1 << 14  # bytes; what is lost of a connection that breaks
ATTEMPTS = 3  # connections to one download; each goes on where the last was cut


@dataclass(frozen=True)
class Source:
    """A folder of images and where it comes from (`kind`, `address`, `sha256`, `synthetic`, `citation`)."""

    root: Path
    description: dict[str, str | bool | None]


def fetch(data: DataSettings, seed: int) -> Source:
    """Make `data.path` a folder of images; raises `CxrError` where it cannot be had."""
    cache = cache_folder(data)
    if data.path == "sample":
        return Source(_phantoms(cache, data.sample_images, seed), _described("sample", "sample", synthetic=True))
    if data.path == "mendeley":
        file = _download(MENDELEY, cache, data.sha256 or MENDELEY_SHA256, MENDELEY_NAME)
        root, digest = archive.unpack(file, cache)
        return Source(root, _described("mendeley", MENDELEY, digest, citation=CITATION))
    if re.match(r"https?://", data.path):
        file = _download(data.path, cache, data.sha256, None)
        root, digest = archive.unpack(file, cache)
        return Source(root, _described("http", _public(data.path), digest))
    path = Path(data.path).expanduser().resolve()
    if path.is_dir():
        return Source(path, _described("folder", str(path)))
    if path.is_file() and path.suffix.lower() == ".zip":
        if data.sha256 and archive.sha256_of(path) != data.sha256:
            raise CxrError(f"{path} has SHA-256 {archive.sha256_of(path)}, data.sha256 is {data.sha256}")
        root, digest = archive.unpack(path, cache)
        return Source(root, _described("zip", str(path), digest))
    seen = "is neither a folder nor a .zip" if path.exists() else "does not exist"
    raise CxrError(f"data path {path} {seen}; give a folder, a .zip, an address, `mendeley` or `sample`")


def cache_folder(data: DataSettings) -> Path:
    """Where downloads, unpacked archives and drawn phantoms are kept."""
    return Path(data.cache_dir).expanduser() if data.cache_dir else Path(pooch.os_cache("cxr"))


def clear(data: DataSettings) -> int:
    """Remove what this module keeps; returns the bytes that were freed. Other folders in the cache stay."""
    freed = 0
    cache = cache_folder(data)
    kept = [*cache.glob("downloads"), *cache.glob("phantoms-v*"), *(f.parent for f in cache.glob(f"*/{archive.DONE}"))]
    kept += [folder for pattern in (".unpack-*", ".phantoms-*") for folder in cache.glob(pattern)]
    for folder in kept:
        freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder, ignore_errors=True)
    return freed


def _described(
    kind: str, address: str, sha256: str | None = None, synthetic: bool = False, citation: str | None = None
) -> dict[str, str | bool | None]:
    return {"kind": kind, "address": address, "sha256": sha256, "synthetic": synthetic, "citation": citation}


def _phantoms(cache: Path, count: int, seed: int) -> Path:
    target = cache / f"phantoms-v{phantom.VERSION}-{count}-{seed}"
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".phantoms-", dir=cache))
        try:
            phantom.draw(scratch, count, seed)
            scratch.rename(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        if not target.is_dir():  # else another process was quicker
            raise CxrError(f"cache folder {cache}: {error.strerror or error}; set data.cache_dir") from None
    return target


def _download(address: str, cache: Path, sha256: str | None, name: str | None) -> Path:
    """The file at `address`, downloaded once; a partial download is gone on with."""
    name = name or re.sub(r"[^\w.-]", "_", Path(urlsplit(address).path).name) or "download.zip"
    known = f"sha256:{sha256}" if sha256 else None
    fetcher = pooch.create(path=cache / "downloads", base_url="", registry={name: known}, urls={name: address})
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        return Path(fetcher.fetch(name, downloader=_resuming))
    except ValueError as error:  # pooch's word for a wrong checksum; it keeps nothing of such a file
        seen = re.search(r"but got ([0-9a-f]{64})", str(error))
        found = f"SHA-256 {seen[1]}" if seen else "another SHA-256"
        raise CxrError(f"{_public(address)} has {found}, wanted is {sha256}; the file changed or was damaged") from None
    except requests.RequestException as error:
        reason = _reason(error)
        raise CxrError(f"{_public(address)} could not be downloaded ({reason}); try again: it goes on") from None
    except OSError as error:
        raise CxrError(f"cache folder {cache}: {error.strerror or error}; make room or set data.cache_dir") from None


def _resuming(url: str, output_file: str, _pooch) -> None:
    """A downloader for pooch that keeps what it has beside the target and asks for the rest."""
    partial = Path(_pooch.path) / f"{Path(urlsplit(url).path).name or 'download'}.partial"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _append(url, partial)
            break
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            if attempt == ATTEMPTS:
                raise
            log.warning("the connection was cut; going on (attempt %d of %d)", attempt + 1, ATTEMPTS)
    partial.replace(output_file)


def _append(url: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # all of it was there already; the checksum tells
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        total = int(response.headers.get("Content-Length", 0)) + (have if resumed else 0)
        with (
            partial.open("ab" if resumed else "wb") as file,
            tqdm(total=total or None, initial=have if resumed else 0, unit="B", unit_scale=True,
                 desc="downloading", disable=not sys.stderr.isatty(), leave=False) as bar,
        ):  # fmt: skip
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total and partial.stat().st_size < total:
        raise requests.ConnectionError(f"{partial.stat().st_size:,} of {total:,} bytes came")


def _public(address: str) -> str:
    """An address without user name and password."""
    return re.sub(r"//[^/@]*@", "//", address)


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    return "no connection, or it was cut" if isinstance(error, requests.ConnectionError) else type(error).__name__
