"""Inspection of every image of a dataset: readability, size, checksum, and fingerprints of the pixels."""

import hashlib
import logging
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from threading import Semaphore
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn
from tqdm import tqdm

from cxr.common import hardware, spark
from cxr.common.names import is_printable, printable
from cxr.common.remote import CONNECTIONS, Remote
from cxr.common.storage import Place
from cxr.datasets.layouts import ListedImage
from cxr.datasets.manifest import EXTRAS
from cxr.datasets.patients import PSEUDONYMS, STUDIES, pseudonym
from cxr.errors import CxrError, ImageError
from cxr.imaging import decode

log = logging.getLogger(__name__)

COLUMNS = [
    "path",
    "label",
    "patient",
    "official_split",
    "sha256",
    "width",
    "height",
    "mode",
    "pixel_hash",
    "phash",
    "thumbnail",
    "mean_grey",
]
_HASH_SIDE = 8  # of the block of lowest frequencies, 64 bits
_THUMBNAIL_SIDE = 32  # pixels
_POOL_FROM = 200  # images; for fewer, starting processes takes longer than decoding
_LISTED = 5  # unreadable files that an error names
_LOG_EVERY_S = 15


def survey(
    root: Place,
    listing: list[ListedImage],
    *,
    workers: int | str = "auto",
    max_unreadable: float = 0.01,
    engine: str = "local",
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Decode and fingerprint all images of a listing, in parallel processes or on the workers of a Spark cluster.

    Args:
        root: folder, or its URL, that the paths are relative to.
        listing: images, as `layouts.scan` or `labelled.read` lists them.
        workers: number of processes; "auto" for one per core. Spark has workers of its own.
        max_unreadable: largest share of unreadable images that is accepted.
        engine: "local" or "spark"; both give the same table.

    Returns:
        A table of `COLUMNS` with the readable images, and after them those of `EXTRAS` that are listed with them; and
        (path, reason) of each unreadable one. A name that cannot be printed makes an image unreadable, and is escaped.
        Patients in the table are unique across official splits, such as `train/person12`; those of DICOM files, unless
        a pseudonym is listed with the image, are pseudonyms, and studies that stand for a patient stay as listed.

    Raises:
        CxrError: Spark or the key of pseudonyms cannot be used, or more than `max_unreadable` of the images cannot be
            read.
    """
    found = _looked_at([item.path for item in listing], root, engine, workers)
    rows, unreadable = [], []
    for item, facts in zip(listing, _with_progress(found, len(listing)), strict=True):
        if isinstance(facts, str):
            unreadable.append((printable(item.path), facts))
        else:
            rows.append(_row(item, facts))
    for path, reason in unreadable:
        log.warning("skipping an unreadable image: %s: %s", path, reason)
    if len(unreadable) > max_unreadable * len(listing):
        details = "; ".join(f"{path}: {reason}" for path, reason in unreadable[:_LISTED])
        raise CxrError(
            f"{len(unreadable)} of {len(listing)} images cannot be read, more than data.max_unreadable="
            f"{max_unreadable:g} allows; replace them or raise the limit: {details}"
        )
    listed = {name for item in listing for name in item.extras}
    return pd.DataFrame(rows, columns=[*COLUMNS, *(name for name in EXTRAS if name in listed)]), unreadable


def perceptual_hash(grey: np.ndarray) -> int:
    """Compute 64 bits that change little when an image is scaled, recompressed or brightened.

    Each bit says whether one of the lowest 8 x 8 cosine frequencies is above their median: C. Zauner, "Implementation
    and benchmarking of perceptual image hash functions" (2010).
    """
    low = dctn(thumbnail(grey).astype(np.float32), norm="ortho")[:_HASH_SIDE, :_HASH_SIDE]
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail(grey: np.ndarray) -> np.ndarray:
    """Scale an image to `uint8` of shape (32, 32), for the comparison of near duplicates."""
    side = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    return np.asarray(Image.fromarray(grey).resize(side, Image.Resampling.LANCZOS))


def _looked_at(paths: list[str], root: Place, engine: str, workers: int | str) -> Iterator[dict[str, Any] | str]:
    """What `_look_at` finds in each file, in order."""
    look = partial(_look_at, root)
    processes = hardware.cores() if workers == "auto" else max(1, int(workers))
    if engine == "spark":
        yield from spark.mapped(look, paths, "cxr-survey")
    elif isinstance(root, Remote):
        # Most of the time goes by waiting for the store; decoding leaves the interpreter to other threads.
        look = partial(look, turns=Semaphore(min(processes, hardware.cores())))
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            yield from threads.map(look, paths)
    elif processes == 1 or len(paths) < _POOL_FROM:
        yield from map(look, paths)
    else:
        # Spawned, since forking a process with threads (MLflow, system metrics) can deadlock.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            yield from pool.map(look, paths, chunksize=32)


def _look_at(root: Place, path: str, turns: AbstractContextManager | None = None) -> dict[str, Any] | str:
    """What a file says by itself, or why it cannot be read; `turns` bounds how many are decoded at once.

    With Spark this runs on other machines. They do not have the key of pseudonyms, which `_patient` needs.
    """
    if not is_printable(path):  # no table, store or terminal keeps such a name as it is
        return "its name has control characters or is not UTF-8; rename it"
    file = root / path
    try:
        if isinstance(file, Path) and file.exists() and not file.is_file():  # reading a pipe would never end
            return "not a regular file"
        data = file.read_bytes()
        with turns or nullcontext():
            image = decode.decode_image(data)
    except OSError as error:
        return error.strerror or str(error)
    except ImageError as error:
        return str(error)
    grey = image.grey
    pixel_hash = hashlib.sha256(np.array(grey.shape, dtype="<i8").tobytes() + grey.tobytes()).hexdigest()
    return {
        "patient": image.patient,
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": grey.shape[1],
        "height": grey.shape[0],
        "mode": image.mode,
        "pixel_hash": pixel_hash,
        "phash": perceptual_hash(grey),
        "thumbnail": thumbnail(grey).tobytes(),
        "mean_grey": float(grey.mean()),
    }


def _row(item: ListedImage, facts: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: what the listing says of an image, and what its file says."""
    listed = {"path": item.path, "label": item.label, "official_split": item.official_split}
    return {**listed, **facts, "patient": _patient(item, facts["patient"]), **item.extras}


def _patient(item: ListedImage, in_file: str | None) -> str:
    """A patient's name that is valid in all official splits; a number in a file name is so only within its own.

    What a table says of the patient counts for all of its files, with and without a patient ID of their own; what it
    says of the study counts for those without.
    """
    if item.patient.startswith(PSEUDONYMS):
        return item.patient
    if in_file:
        return pseudonym(in_file)
    return item.patient if item.patient.startswith(STUDIES) else f"{item.official_split or 'all'}/{item.patient}"


def _with_progress(results: Iterable, total: int) -> Iterable:
    """Show a progress bar on a terminal, and log a line every 15 seconds."""
    last = time.monotonic()
    bar = tqdm(results, total=total, desc="decoding", unit="image", leave=False, disable=not sys.stderr.isatty())
    for number, result in enumerate(bar, start=1):
        if time.monotonic() - last > _LOG_EVERY_S:
            log.info("decoded %d of %d images", number, total)
            last = time.monotonic()
        yield result
