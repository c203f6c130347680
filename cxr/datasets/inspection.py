"""Decode every image once: what can be read, how large it is, and two fingerprints of its pixels."""

import hashlib
import logging
import multiprocessing
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn
from tqdm import tqdm

from cxr.common import hardware
from cxr.datasets.layouts import Found
from cxr.errors import CxrError, ImageError
from cxr.imaging import decode

log = logging.getLogger("cxr.datasets.inspection")

COLUMNS = [
    "path",
    "label",
    "patient",
    "part",
    "sha256",
    "width",
    "height",
    "mode",
    "pixel_hash",
    "phash",
    "thumbnail",
    "mean_grey",
]
_HASH_SIDE, _THUMBNAIL_SIDE = 8, 32
_SHOWN = 5  # unreadable files named in an error
_LOG_EVERY_S = 15


def survey(
    root: Path, found: list[Found], *, workers: int | str = "auto", max_unreadable: float = 0.01
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Decode all of `found` in parallel processes; returns the readable ones as a table, the others with the reason.

    Patients become unique over the official parts (`train/person12`). More than a share of `max_unreadable` that
    cannot be read raises `CxrError`.
    """
    processes = hardware.cores() if workers == "auto" else max(1, int(workers))
    if processes == 1 or len(found) < 200:
        results = list(_watched(map(partial(_look, root), found), len(found)))
    else:
        # Not forked: the parent has threads (MLflow, system metrics) that a fork would copy half.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            results = list(_watched(pool.map(partial(_look, root), found, chunksize=32), len(found)))
    rows = [row for row in results if isinstance(row, dict)]
    unreadable = [row for row in results if not isinstance(row, dict)]
    for path, reason in unreadable:
        log.warning("left out: %s: %s", path, reason)
    if len(unreadable) > max_unreadable * len(found):
        named = "; ".join(f"{path}: {reason}" for path, reason in unreadable[:_SHOWN])
        raise CxrError(
            f"{len(unreadable)} of {len(found)} images cannot be read, allowed is a share of {max_unreadable:g} "
            f"(data.max_unreadable): {named}"
        )
    return pd.DataFrame(rows, columns=COLUMNS), unreadable


def perceptual_hash(grey: np.ndarray) -> int:
    """64 bits that change little when a picture is scaled, recompressed or brightened.

    The signs of the lowest 8 x 8 cosine frequencies against their median: C. Zauner, "Implementation and benchmarking
    of perceptual image hash functions" (2010).
    """
    low = dctn(thumbnail(grey).astype(np.float32), norm="ortho")[:_HASH_SIDE, :_HASH_SIDE]
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail(grey: np.ndarray) -> np.ndarray:
    """A small version, `uint8` of shape (32, 32), that near duplicates are compared by."""
    side = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    return np.asarray(Image.fromarray(grey).resize(side, Image.Resampling.LANCZOS))


def _look(root: Path, item: Found) -> dict | tuple[str, str]:
    try:
        data = (root / item.path).read_bytes()
        picture = decode.decode_image(data)
    except OSError as error:
        return item.path, error.strerror or str(error)
    except ImageError as error:
        return item.path, str(error)
    grey = picture.grey
    pixels = hashlib.sha256(np.array(grey.shape, dtype="<i8").tobytes() + grey.tobytes()).hexdigest()
    return {
        "path": item.path,
        "label": item.label,
        # A DICOM file knows its patient, in every part the same; a name is one patient's inside its own part only.
        "patient": f"dicom/{picture.patient}" if picture.patient else f"{item.part or 'all'}/{item.patient}",
        "part": item.part,
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": grey.shape[1],
        "height": grey.shape[0],
        "mode": picture.mode,
        "pixel_hash": pixels,
        "phash": perceptual_hash(grey),
        "thumbnail": thumbnail(grey).tobytes(),
        "mean_grey": float(grey.mean()),
    }


def _watched(results: Iterable, total: int) -> Iterable:
    """Progress: a bar for a person, a line now and then for a log."""
    last = time.monotonic()
    bar = tqdm(results, total=total, desc="decoding", unit="image", leave=False, disable=not sys.stderr.isatty())
    for number, result in enumerate(bar, start=1):
        if time.monotonic() - last > _LOG_EVERY_S:
            log.info("decoded %d of %d images", number, total)
            last = time.monotonic()
        yield result
