"""Decoding of DICOM files: grey levels as a workstation would first display them, and the patient ID.

Grey levels follow DICOM PS3.4 N.2: modality transformation (rescale), then VOI transformation (window or table).
MONOCHROME1 is inverted so that air is black. Needs pydicom, and python-gdcm for the JPEG variants that Pillow lacks.

A file is read in two calls, `header` and `radiograph`, by a process of `cxr.imaging.dicom_worker`: a damaged file can
crash or hang the libraries that decode it.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from cxr.errors import ImageError, in_short
from cxr.imaging.lookup import bands, looked_up
from cxr.imaging.preprocess import check_size

SUFFIXES = (".dcm", ".dicom")
_REQUIRED = ("Rows", "Columns", "PhotometricInterpretation", "BitsAllocated", "BitsStored")  # elements
_PREAMBLE = 128  # bytes before `DICM`
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# Files with oddities that pydicom can handle are common. Set once, since threads share the warning filters.
warnings.filterwarnings("ignore", module=r"pydicom\.")
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # UID of a transfer syntax
_META_BYTES = 4096  # bytes that are searched for the transfer syntax
_FAR = 1e9  # beyond any stored value, so that a window maps it to an end of its output range


@dataclass(frozen=True)
class Dicom:
    """A decoded radiograph.

    Attributes:
        grey: `uint8` of shape (H, W).
        mode: photometric interpretation and bits stored, such as `DICOM MONOCHROME2 12`.
        patient: issuer and patient ID; None if the file has none. Never kept: see `cxr.datasets.patients`.
    """

    grey: np.ndarray
    mode: str
    patient: str | None = field(repr=False)


def is_dicom(data: bytes) -> bool:
    """Whether `data` begins like a DICOM file (PS3.10): 128 bytes of preamble, then `DICM`."""
    return data[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def header(data: bytes, max_pixels: int) -> Any:
    """Parse a DICOM file and check its header; its pixels are not decoded yet.

    Args:
        data: bytes of the file.
        max_pixels: largest width x height that is accepted.

    Returns:
        The data set, for `radiograph`.

    Raises:
        ImageError: the file is damaged, not a single image, out of limits or of an unsupported kind.
    """
    from pydicom import dcmread  # here, since most images are not DICOM files

    if _DEFLATED in data[:_META_BYTES]:
        raise ImageError("a deflated DICOM file, whose size is unknown until it is decompressed; save it uncompressed")
    with _damage_refused():
        dataset = dcmread(io.BytesIO(data))
        if not _given(dataset, "PixelData"):
            raise ImageError("a DICOM file without pixels; expected a radiograph")
        if missing := [name for name in _REQUIRED if not _given(dataset, name)]:
            raise ImageError(f"a DICOM file without {', '.join(missing)}; expected a complete header")
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames != 1:
            raise ImageError(f"{frames} frames; expected a single image")
        check_size(int(dataset.Columns), int(dataset.Rows), max_pixels)
        interpretation, supported = str(dataset.PhotometricInterpretation), _GREY + _COLOUR
        if interpretation not in supported:
            raise ImageError(
                f"photometric interpretation {interpretation[:20]}; expected one of {', '.join(supported)}"
            )
        if not 1 <= int(dataset.BitsStored) <= int(dataset.BitsAllocated) <= 16:
            raise ImageError(
                f"{dataset.BitsStored} of {dataset.BitsAllocated} bits per pixel; at most 16 are supported"
            )
        return dataset


def radiograph(dataset: Any) -> Dicom:
    """Decode the pixels of a data set from `header`.

    Raises:
        ImageError: the pixels are damaged or of an unsupported kind.
        MemoryError: they do not fit into the memory of this process.
    """
    with _damage_refused(), np.errstate(all="ignore"):
        return Dicom(_grey(dataset, _stored(dataset)), _mode(dataset), _patient(dataset))


@contextmanager
def _damage_refused() -> Iterator[None]:
    """Turn any exception of a parser into an `ImageError`."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # parsers of so wide a format raise many types on damaged files
        # pydicom lists the decoders that it tried and how each of them failed; here it is always one.
        _, listed, cause = str(error).rpartition("available plugins:")
        cause = in_short(ValueError(cause) if listed else error)
        if "NoneType" in cause:  # what pydicom makes of a refusal by GDCM
            cause = "its pixels cannot be decoded"
        raise ImageError(f"the DICOM file is damaged or of an unsupported kind ({cause})") from None


def _given(dataset: Any, name: str) -> bool:
    """Whether an element is there and has a value; many files hold empty ones."""
    return name in dataset and not dataset[name].is_empty


def _stored(dataset: Any) -> np.ndarray:
    """Stored values of shape (H, W), or RGB of shape (H, W, 3)."""
    from pydicom.pixels import pixel_array
    from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return pixel_array(dataset)
    if syntax in (JPEGBaseline8Bit, JPEG2000, JPEG2000Lossless):
        return pixel_array(dataset, decoding_plugin="pillow")
    return pixel_array(dataset, decoding_plugin="pydicom" if syntax == RLELossless else "gdcm")


def _grey(dataset: Any, stored: np.ndarray) -> np.ndarray:
    if dataset.PhotometricInterpretation in _COLOUR:
        if stored.dtype != np.uint8 or stored.ndim != 3:
            raise ImageError("colour with more than 8 bits per channel; only grey images can have up to 16")
        grey = np.empty(stored.shape[:2], np.uint8)
        for rows in bands(grey):
            grey[rows] = np.asarray(Image.fromarray(stored[rows]).convert("L"))
        return grey
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise ImageError(f"pixels of shape {stored.shape}; expected a single grey image")
    # What is shown depends on the stored value alone: 65,536 values are windowed, however many pixels there are.
    indices = stored.view(f"u{stored.dtype.itemsize}")
    values = np.arange(256**stored.dtype.itemsize, dtype=indices.dtype).view(stored.dtype)
    padding = _padding(values, dataset)
    displayed = _displayed(values, _present(indices, len(values)) & ~padding, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        displayed = 1 - displayed
    displayed[padding] = 0
    return looked_up((displayed * 255 + 0.5).astype(np.uint8), indices)


def _present(indices: np.ndarray, count: int) -> np.ndarray:
    """Mask, of shape (count,), of the indices that occur."""
    present = np.zeros(count, bool)
    for rows in bands(indices):
        present[indices[rows]] = True
    return present


def _displayed(stored: np.ndarray, shown: np.ndarray, dataset: Any) -> np.ndarray:
    """Map stored values to 0..1 with the first VOI transformation; without one, by the range of those `shown`."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    if _given(dataset, "VOILUTSequence"):
        table = dataset.VOILUTSequence[0]
        low, high = 0.0, float(2 ** int(table.LUTDescriptor[2]) - 1)
        values = apply_voi_lut(values.round().astype(np.int64), dataset)
    elif _given(dataset, "WindowCenter") and _given(dataset, "WindowWidth"):
        low, high = (float(v) for v in apply_voi_lut(np.array([-_FAR, _FAR]), dataset, prefer_lut=False))
        values = apply_voi_lut(values, dataset, prefer_lut=False)
    else:
        low, high = (float(values[shown].min()), float(values[shown].max())) if shown.any() else (0.0, 0.0)
    if not np.isfinite([low, high]).all():
        raise ImageError("the window of grey levels is not finite; expected two finite numbers")
    if high == low:
        return np.zeros(stored.shape)
    # With a negative RescaleSlope, pydicom gives the range of a window upside down, and its values with it.
    return np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), 0, 1)


def _padding(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Mask of the padding around the image (PS3.3 C.7.5.1.1.2): shown black and excluded from the range."""
    if not _given(dataset, "PixelPaddingValue"):
        return np.zeros(stored.shape, bool)
    value = int(dataset.PixelPaddingValue)
    limit = int(dataset.PixelPaddingRangeLimit) if _given(dataset, "PixelPaddingRangeLimit") else value
    return (stored >= min(value, limit)) & (stored <= max(value, limit))


def _mode(dataset: Any) -> str:
    return f"DICOM {dataset.PhotometricInterpretation} {dataset.BitsStored}"


def _patient(dataset: Any) -> str | None:
    """Issuer and patient ID, the same in all files of a patient."""
    patient_id = str(dataset.get("PatientID") or "").strip()
    if not patient_id:
        return None
    issuer = str(dataset.get("IssuerOfPatientID") or "").strip()
    return f"{issuer}\0{patient_id}"
