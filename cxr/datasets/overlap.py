"""Which images of one dataset stand in another, by their fingerprints alone.

`prepare_split` keeps the fingerprints of every image of its manifest (`split/fingerprints.parquet`), so that another
dataset can be compared with it later, without either's images.

- **same pixels**: the files or the decoded grey levels are equal.
- **near duplicate**: the perceptual hashes differ in a few bits, as in `cxr.datasets.leakage`, and the thumbnails
  correlate. There, the correlation is computed; here, it is estimated from hashes of the thumbnails, with a standard
  error of about 0.003 near the limit. Recompressed, scaled or slightly brightened copies are found. Copies that were
  cropped, turned, mirrored or inverted are not, nor are two exposures of one child.
- **same patient**: the identifiers are equal, in two datasets that name patients alike. Hospitals number children from
  1, so equal identifiers of two hospitals mean nothing, and no image is ever left out for them. Names are taken for
  alike only where the caller knows it (the same source), or where the datasets share images and most of the shared ones
  carry the same patient in both. What cannot be seen: a patient of both datasets under two identifiers, and one with
  the same identifier in two sources that share no image.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cxr.datasets.leakage import CORRELATION
from cxr.datasets.near_hashes import near_pairs
from cxr.errors import CxrError, in_short

FILE = "fingerprints.parquet"
COLUMNS = ["path", "patient", "split", "sha256", "pixel_hash", "phash", "thumbnail_hash"]
PIXELS, NEAR, PATIENT = "same pixels", "near duplicate", "same patient"
REASONS = (PIXELS, NEAR, PATIENT)  # the first that applies is given
_PIXELS = 32 * 32  # of a thumbnail
_BITS = 1024  # of a thumbnail's hash


def fingerprints(table: pd.DataFrame) -> pd.DataFrame:
    """What identifies each image, without its picture.

    Args:
        table: images with the columns of `cxr.datasets.inspection.survey` and `split`.

    Returns:
        A table of `COLUMNS` in the same order; `phash` is `uint64`, `thumbnail_hash` is 128 bytes.
    """
    hashes = {"phash": table["phash"].astype(np.uint64), "thumbnail_hash": _thumbnail_hashes(table["thumbnail"])}
    return table.assign(**hashes)[COLUMNS].reset_index(drop=True)


def save(table: pd.DataFrame, folder: Path) -> None:
    """Write what `fingerprints` returned into `folder`, for `load`."""
    table.to_parquet(folder / FILE, index=False)


def load(folder: Path) -> pd.DataFrame:
    """Read the fingerprints of a split; raises `CxrError` if they are damaged, or the split is older than they are."""
    try:
        table = pd.read_parquet(folder / FILE)
    except (OSError, ValueError) as error:
        why = "there are none" if isinstance(error, FileNotFoundError) else in_short(error)
        raise CxrError(f"{folder}: its fingerprints cannot be read ({why}); run prepare_split again") from None
    if list(table.columns) != COLUMNS:
        raise CxrError(f"{folder / FILE}: expected the columns {', '.join(COLUMNS)}; run prepare_split again")
    return table


def find(images: pd.DataFrame, others: pd.DataFrame, bits: int, *, same_names: bool | None = None) -> pd.DataFrame:
    """Find the rows of `images` that stand in `others`.

    Args:
        images: a table of `COLUMNS`; `split` is not needed.
        others: another one.
        bits: number of bits in which perceptual hashes of near duplicates may differ.
        same_names: whether an identifier means the same patient in both; None: as the shared images show (see
            `name_patients_alike`).

    Returns:
        A table with one row for each image that was found, in the order of `images`: `row`, its position there;
        `other`, the position of its match in `others`; and `reason`, the first of `REASONS` that applies.
    """
    match = np.full((len(REASONS), len(images)), -1)
    if len(images) and len(others):
        match[0] = _same_pixels(images, others)
        match[1] = _near(images, others, bits)
        if name_patients_alike(images, others) if same_names is None else same_names:
            match[2] = _positions(images["patient"], others["patient"])
    rows = np.flatnonzero((match >= 0).any(0))
    first = (match[:, rows] >= 0).argmax(0)
    reasons = np.array(REASONS, dtype=object)[first]
    return pd.DataFrame({"row": rows, "other": match[first, rows], "reason": reasons})


def name_patients_alike(images: pd.DataFrame, others: pd.DataFrame) -> bool:
    """Whether most images that stand in both tables, by their pixels, carry the same patient in both."""
    match = _same_pixels(images, others)
    shared = match >= 0
    same = images["patient"].to_numpy()[shared] == others["patient"].to_numpy()[match[shared]]
    return bool(2 * same.sum() > len(same))


def _same_pixels(images: pd.DataFrame, others: pd.DataFrame) -> np.ndarray:
    """Position of an image of `others` with the same file or pixels for each image, -1 without one, of shape (n,)."""
    files, pixels = (_positions(images[column], others[column]) for column in ("sha256", "pixel_hash"))
    return np.where(files >= 0, files, pixels)


def _positions(values: pd.Series, others: pd.Series) -> np.ndarray:
    """Position of the first equal value in `others` for each value, -1 without one, of shape (n,)."""
    first = ~others.duplicated().to_numpy()
    found = pd.Index(others[first]).get_indexer(pd.Index(values))
    return np.where(found >= 0, np.flatnonzero(first)[found], -1)


def _near(images: pd.DataFrame, others: pd.DataFrame, bits: int) -> np.ndarray:
    """Position of the first near duplicate in `others` for each image, -1 without one, of shape (n,)."""
    ours, theirs = (table["phash"].to_numpy(np.uint64) for table in (images, others))
    our_thumbnails, their_thumbnails = (_as_array(table["thumbnail_hash"]) for table in (images, others))
    match = np.full(len(ours), len(theirs))
    for first, second in near_pairs(np.concatenate([ours, theirs]), bits):
        across = (first < len(ours)) & (second >= len(ours))
        a, b = first[across], second[across] - len(ours)
        alike = _correlations(our_thumbnails[a], their_thumbnails[b]) >= CORRELATION
        np.minimum.at(match, a[alike], b[alike])
    return np.where(match < len(theirs), match, -1)


def _thumbnail_hashes(thumbnails: pd.Series) -> list[bytes]:
    """1024 bits of each thumbnail: on which side of 1024 fixed random planes it lies, its mean taken off.

    The share of bits in which two such hashes differ estimates the angle between the thumbnails: M. S. Charikar,
    "Similarity estimation techniques from rounding algorithms" (STOC 2002).
    """
    # The raw stream of a bit generator never changes, unlike the distributions that NumPy draws from it.
    raw = np.random.PCG64(0).random_raw(_PIXELS * _BITS // 64).astype("<u8")
    planes = np.unpackbits(raw.view(np.uint8)).reshape(_PIXELS, _BITS).astype(np.float32) * 2 - 1
    ones = planes.sum(0, dtype=np.float64)
    hashes: list[bytes] = []
    for start in range(0, len(thumbnails), 4096):
        grey = np.stack([np.frombuffer(thumbnail, np.uint8) for thumbnail in thumbnails.iloc[start : start + 4096]])
        # Whole numbers below 2^24, so that every machine gets the same sums, in single precision too.
        sums = grey.astype(np.float32) @ planes
        above_mean = _PIXELS * sums.astype(np.float64) > grey.sum(1, dtype=np.float64)[:, None] * ones
        hashes += [row.tobytes() for row in np.packbits(above_mean, axis=1)]
    return hashes


def _as_array(hashes: pd.Series) -> np.ndarray:
    """Hashes of thumbnails as `uint64` of shape (n, 16)."""
    return np.frombuffer(b"".join(hashes), np.uint64).reshape(len(hashes), _BITS // 64)


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Estimated correlation of the thumbnails of each pair of hashes, `uint64` of shape (n, 16)."""
    differ = np.bitwise_count(a ^ b).sum(1)
    return np.cos(np.pi * differ / _BITS)
