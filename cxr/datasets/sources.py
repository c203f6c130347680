"""Sources of X-rays: a folder, a zip archive, remote storage, a URL, the Mendeley dataset, or drawn phantoms.

`fetch` turns any source into a folder of images. Downloads and unpacked archives are kept in the cache folder; a folder
in remote storage stays where it is.
"""

import logging
import re
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm

from cxr.common import storage
from cxr.common.files import make_folder, publish, remove_folder, sha256_of_text, write_atomic
from cxr.common.locks import alone
from cxr.common.names import is_printable, printable
from cxr.common.remote import Remote
from cxr.common.storage import Place
from cxr.datasets import archive, phantom
from cxr.errors import CxrError
from cxr.settings.schema import DataSettings

log = logging.getLogger(__name__)

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
TIMEOUT_S = (10, 60)  # to connect, and between two chunks of a download
CHUNK = 1 << 14  # bytes; at most this much is lost when a connection breaks
ATTEMPTS = 3  # connections per download; each resumes where the last one broke


@dataclass(frozen=True)
class Source:
    """A folder of images and its origin.

    Attributes:
        root: folder of the images, or its URL.
        description: `kind`, `address`, `sha256` of the archive, `synthetic` and `citation`.
    """

    root: Place
    description: dict[str, str | bool | None]


def fetch(data: DataSettings, seed: int) -> Source:
    """Turn `data.path` into a folder of images, by download, unpacking or drawing if necessary.

    Args:
        data: the settings.
        seed: seed of drawn phantoms.

    Raises:
        CxrError: the source does not exist, has another checksum than expected, or cannot be downloaded or unpacked.
    """
    cache = cache_folder(data)
    if data.path == "sample":
        return Source(_phantoms(cache, data.sample_images, seed), _description("sample", "sample", synthetic=True))
    if data.path == "mendeley":
        file = _download(MENDELEY, cache, data.sha256 or MENDELEY_SHA256, MENDELEY_NAME)
        root, digest = _unpack_download(file, cache)
        return Source(root, _description("mendeley", MENDELEY, digest, citation=CITATION))
    if storage.is_download(data.path):
        file = _download(data.path, cache, data.sha256, None)
        root, digest = _unpack_download(file, cache)
        return Source(root, _description("http", _without_credentials(data.path), digest))
    path = storage.given(data.path, "data_path")
    path = path.resolve() if isinstance(path, Path) else path
    if not is_printable(path):
        raise CxrError(
            f"data path {printable(path)} has control characters or is not UTF-8; rename the folder or file, or give "
            "another"
        )
    if path.is_dir():
        return Source(path, _description("folder", str(path)))
    if path.is_file() and path.suffix.lower() == ".zip":
        file = _copied(path, cache) if isinstance(path, Remote) else path
        actual = archive.sha256_of(file) if data.sha256 else None
        if actual != data.sha256:
            raise CxrError(f"{path} has SHA-256 {actual}, expected data.sha256={data.sha256}; correct one of them")
        root, digest = _unpack_download(file, cache) if isinstance(path, Remote) else archive.unpack(file, cache)
        return Source(root, _description("zip", str(path), digest))
    problem = "is neither a folder nor a .zip" if path.exists() else storage.why_missing(path)
    raise CxrError(f"data path {path} {problem}; expected a folder, a .zip, a URL, `mendeley` or `sample`")


def cache_folder(data: DataSettings) -> Path:
    """Return the folder in which downloads, unpacked archives and drawn phantoms are kept."""
    return Path(data.cache_dir).expanduser() if data.cache_dir else Path(pooch.os_cache("cxr"))


def clear(data: DataSettings) -> int:
    """Remove downloads, unpacked archives and phantoms from the cache folder; returns the number of bytes freed.

    Waits for processes that are downloading or unpacking.
    """
    freed = 0
    cache = cache_folder(data)
    with ExitStack() as held:
        locks = [*cache.glob(".*.lock"), *cache.glob("downloads/.*.lock")]
        for lock in locks:
            held.enter_context(alone(lock))
        patterns = ("downloads", "phantoms-v*", f"{archive.SCRATCH}*", ".phantoms-*")
        folders = [folder for pattern in patterns for folder in cache.glob(pattern)]
        folders += [marker.parent for marker in cache.glob(f"*/{archive.DONE}")]
        for folder in folders:
            freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            remove_folder(folder, archive.SCRATCH)
        for lock in locks:
            lock.unlink(missing_ok=True)
    return freed


def _description(
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
            publish(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        if not target.is_dir():  # otherwise another process was faster
            raise CxrError(f"cache folder {cache}: {error.strerror or error}; set data.cache_dir") from None
    return target


def _copied(archive_: Remote, cache: Path) -> Path:
    """A remote archive as a file in the cache, copied once for each content that it has."""
    folder = cache / "downloads"
    target = folder / f"{sha256_of_text(f'{archive_} {archive_.identity()}')[:12]}-{archive_.name}"
    try:
        make_folder(folder)
        with alone(folder / f".{target.name}.lock"):
            if not target.is_file():
                log.info("copying %s", archive_)
                with archive_.open() as opened:
                    write_atomic(target, partial(shutil.copyfileobj, opened))
    except OSError as error:
        raise CxrError(f"cache folder {cache}: {error.strerror or error}; make room or set data.cache_dir") from None
    return target


def _unpack_download(file: Path, cache: Path) -> tuple[Path, str]:
    """Unpack a downloaded archive; a damaged one is removed, so that the next attempt downloads it again."""
    try:
        return archive.unpack(file, cache)
    except archive.DamagedArchiveError:
        file.unlink(missing_ok=True)
        raise


def _download(address: str, cache: Path, sha256: str | None, name: str | None) -> Path:
    """Download a file unless it is in the cache; a partial download is resumed.

    Files of addresses that end in the same name are kept apart by a digest of the address.
    """
    if name is None:
        last = re.sub(r"[^\w.-]", "_", Path(urlsplit(address).path).name) or "download.zip"
        name = f"{sha256_of_text(address)[:12]}-{last}"
    checksum = f"sha256:{sha256}" if sha256 else None
    fetcher = pooch.create(path=cache / "downloads", base_url="", registry={name: checksum}, urls={name: address})
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        fetcher.abspath.mkdir(parents=True, exist_ok=True)
        with alone(fetcher.abspath / f".{name}.lock"):  # two processes would append to the same partial file
            return Path(fetcher.fetch(name, downloader=_resume))
    except requests.RequestException as error:
        # Those of an address that cannot be used are `ValueError` as well.
        remedy = (
            "correct it, or the proxy in the environment" if isinstance(error, ValueError) else "try again to resume"
        )
        raise CxrError(
            f"{_without_credentials(address)} could not be downloaded ({_reason(error)}); {remedy}"
        ) from None
    except ValueError as error:  # raised by pooch for a wrong checksum, after it has removed the file
        match = re.search(r"but got ([0-9a-f]{64})", str(error))
        actual = f"SHA-256 {match[1]}" if match else "another SHA-256"
        raise CxrError(
            f"{_without_credentials(address)} has {actual}, expected {sha256}; the file has changed or was damaged: "
            "try again, or correct data.sha256"
        ) from None
    except OSError as error:
        raise CxrError(f"cache folder {cache}: {error.strerror or error}; make room or set data.cache_dir") from None


def _resume(url: str, output_file: str, fetcher: pooch.Pooch) -> None:
    """Download for pooch: keep a partial file beside the target and request only the rest."""
    partial = Path(fetcher.path) / f"{sha256_of_text(url)[:12]}.partial"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _append(url, partial)
            break
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            if attempt == ATTEMPTS:
                raise
            log.warning("the connection broke; resuming the download (attempt %d of %d)", attempt + 1, ATTEMPTS)
    publish(partial, Path(output_file))


def _append(url: str, partial: Path) -> None:
    """Request the bytes that `partial` lacks and append them; start again if the server does not support ranges."""
    size = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={size}-"} if size else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            # The partial file is complete, or longer than what the server has now: only its size can tell.
            match = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
            if match is None or int(match[1]) != size:
                partial.unlink()
                raise requests.ConnectionError("the partial download does not belong to the file on the server")
            return
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        start = size if resumed else 0
        total = int(response.headers.get("Content-Length", 0)) + start
        progress = tqdm(
            total=total or None,
            initial=start,
            unit="B",
            unit_scale=True,
            desc="downloading",
            disable=not sys.stderr.isatty(),
            leave=False,
        )
        with progress, partial.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                progress.update(len(chunk))
    if total and partial.stat().st_size < total:
        raise requests.ConnectionError(f"{partial.stat().st_size:,} of {total:,} bytes were received")


def _without_credentials(address: str) -> str:
    """Remove user name and password from a URL."""
    return re.sub(r"//[^/@]*@", "//", address)


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    return "no connection, or it broke" if isinstance(error, requests.ConnectionError) else type(error).__name__
