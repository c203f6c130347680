"""DICOM: bytes of one radiograph to grey `uint8`, as a workstation would show it first, and whose it is.

The way of the grey levels is that of DICOM PS3.4 N.2: modality (rescale) and VOI (window or table) transformations,
MONOCHROME1 turned so that air is black. Needs pydicom, and python-gdcm for the JPEG kinds that Pillow does not know.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from cxr.errors import ImageError, in_short
from cxr.imaging.dicom_worker import DECODER

SUFFIXES = (".dcm", ".dicom")
_PREAMBLE = 128  # bytes before the letters DICM
_SHADES = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# What pydicom finds odd in a file is no news to a caller; set once, since filters belong to all threads.
warnings.filterwarnings("ignore", module=r"pydicom\.")
_DEFLATED, _META = b"1.2.840.10008.1.2.1.99", 4096  # a transfer syntax, and the bytes that name it
_FAR = 1e9  # beyond any stored value: what a window makes of it is the end of its output range


@dataclass(frozen=True)
class Dicom:
    """One radiograph: `grey` is `uint8` of shape (H, W); `patient` a digest of the patient's ID, or None."""

    grey: np.ndarray
    mode: str
    patient: str | None


def is_dicom(data: bytes) -> bool:
    """Whether `data` begins as a DICOM file (PS3.10): 128 bytes of preamble, then DICM."""
    return data[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def read(data: bytes, max_pixels: int, min_side: int) -> Dicom:
    """Decode a DICOM file; raises `ImageError` for what is damaged, not a single picture, or could only be guessed."""
    # Parsers of a format this wide fail in many ways on damaged files; each of them means the same to the caller.
    try:
        with np.errstate(all="ignore"):
            dataset = _header(data, max_pixels, min_side)
            grey = _grey(dataset, _stored(dataset, data))
            return Dicom(grey, _mode(dataset), _patient(dataset))
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("the DICOM file asks for more memory than there is") from None
    except Exception as error:
        raise ImageError(f"the DICOM file is damaged or of a kind that cannot be read ({in_short(error)})") from None


def _header(data: bytes, max_pixels: int, min_side: int) -> Any:
    from pydicom import dcmread  # here, not above: most pictures are no DICOM files

    if _DEFLATED in data[:_META]:
        raise ImageError("a deflated DICOM file, whose size nobody knows before it is read; save it uncompressed")
    dataset = dcmread(io.BytesIO(data))
    if "PixelData" not in dataset:
        raise ImageError("a DICOM file without pixels; a radiograph is needed")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ImageError(f"{frames} frames; a single picture is needed")
    height, width = int(dataset.Rows), int(dataset.Columns)
    if width * height > max_pixels:
        raise ImageError(f"{width} x {height} pixels; at most {max_pixels:,} in all are read")
    if min(width, height) < min_side:
        raise ImageError(f"{width} x {height} pixels; each side needs at least {min_side}")
    kind = str(dataset.PhotometricInterpretation)
    if kind not in _SHADES + _COLOUR:
        raise ImageError(f"photometric interpretation {kind}; allowed: {', '.join(_SHADES + _COLOUR)}")
    if not 1 <= int(dataset.BitsStored) <= int(dataset.BitsAllocated) <= 16:
        raise ImageError(f"{dataset.BitsStored} of {dataset.BitsAllocated} bits a pixel; up to 16 can be read")
    return dataset


def _stored(dataset: Any, data: bytes) -> np.ndarray:
    """Stored values, of shape (H, W), or RGB of shape (H, W, 3)."""
    from pydicom.pixels import pixel_array
    from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in (JPEGBaseline8Bit, JPEG2000, JPEG2000Lossless):
        return pixel_array(dataset, decoding_plugin="pillow")
    if syntax == RLELossless:
        return pixel_array(dataset, decoding_plugin="pydicom")
    return DECODER.pixels(data) if syntax.is_compressed and syntax.is_encapsulated else pixel_array(dataset)


def _grey(dataset: Any, stored: np.ndarray) -> np.ndarray:
    if dataset.PhotometricInterpretation in _COLOUR:
        if stored.dtype != np.uint8 or stored.ndim != 3:
            raise ImageError("colour of more than 8 bits; grey pictures can have 16")
        return np.array(Image.fromarray(stored).convert("L"))
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise ImageError(f"pixels of shape {stored.shape}; a single grey picture is needed")
    shown = _displayed(stored, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    shown[_padding(stored, dataset)] = 0
    return (shown * 255 + 0.5).astype(np.uint8)


def _displayed(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Stored values to 0..1, by the first VOI transformation there is; without one, their own range is the window."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    if "VOILUTSequence" in dataset:
        table = dataset.VOILUTSequence[0]
        low, high = 0.0, float(2 ** int(table.LUTDescriptor[2]) - 1)
        values = apply_voi_lut(values.round().astype(np.int64), dataset)
    elif "WindowCenter" in dataset and "WindowWidth" in dataset:
        low, high = (float(v) for v in apply_voi_lut(np.array([-_FAR, _FAR]), dataset, prefer_lut=False))
        values = apply_voi_lut(values, dataset, prefer_lut=False)
    else:
        inside = values[~_padding(stored, dataset)]
        low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)
    if not np.isfinite([low, high]).all():
        raise ImageError("a window of grey levels that is not finite")
    if high <= low:
        return np.zeros(stored.shape)
    return np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), 0, 1)


def _padding(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Where the file says that there is no picture (PS3.3 C.7.5.1.1.2): shown black, never part of a range."""
    if "PixelPaddingValue" not in dataset:
        return np.zeros(stored.shape, bool)
    ends = sorted(
        (int(dataset.PixelPaddingValue), int(dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue)))
    )
    return (stored >= ends[0]) & (stored <= ends[1])


def _mode(dataset: Any) -> str:
    return f"DICOM {dataset.PhotometricInterpretation} {dataset.BitsStored}"


def _patient(dataset: Any) -> str | None:
    """A digest that is the same for all files of one patient of one issuer, and does not show the ID itself."""
    patient = str(dataset.get("PatientID") or "").strip()
    if not patient:
        return None
    issuer = str(dataset.get("IssuerOfPatientID") or "").strip()
    return hashlib.sha256(f"{issuer}\0{patient}".encode()).hexdigest()[:16]
