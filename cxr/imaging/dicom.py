"""Decoding of DICOM files: grey levels as a workstation would first display them, and the patient ID.

Grey levels follow DICOM PS3.4 N.2: modality transformation (rescale), then VOI transformation (window or table).
MONOCHROME1 is inverted so that air is black. Needs pydicom, and python-gdcm for the JPEG variants that Pillow lacks.
"""

import io
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from cxr.errors import ImageError, in_short
from cxr.imaging.dicom_worker import DECODER
from cxr.imaging.preprocess import check_size

SUFFIXES = (".dcm", ".dicom")
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


def read(data: bytes, max_pixels: int) -> Dicom:
    """Decode a DICOM file.

    Args:
        data: bytes of the file.
        max_pixels: largest width x height that is accepted.

    Raises:
        ImageError: the file is damaged, not a single image, out of limits or of an unsupported kind.
    """
    try:
        with np.errstate(all="ignore"):
            dataset = _header(data, max_pixels)
            grey = _grey(dataset, _stored(dataset, data))
            return Dicom(grey, _mode(dataset), _patient(dataset))
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("not enough memory to decode the DICOM file") from None
    except Exception as error:  # parsers of so wide a format raise many types on damaged files
        raise ImageError(f"the DICOM file is damaged or of an unsupported kind ({in_short(error)})") from None


def _header(data: bytes, max_pixels: int) -> Any:
    from pydicom import dcmread  # here, since most images are not DICOM files

    if _DEFLATED in data[:_META_BYTES]:
        raise ImageError("a deflated DICOM file, whose size is unknown until it is decompressed; save it uncompressed")
    dataset = dcmread(io.BytesIO(data))
    if "PixelData" not in dataset:
        raise ImageError("a DICOM file without pixels; expected a radiograph")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ImageError(f"{frames} frames; expected a single image")
    height, width = int(dataset.Rows), int(dataset.Columns)
    check_size(width, height, max_pixels)
    interpretation, supported = str(dataset.PhotometricInterpretation), _GREY + _COLOUR
    if interpretation not in supported:
        raise ImageError(f"photometric interpretation {interpretation}; expected one of {', '.join(supported)}")
    if not 1 <= int(dataset.BitsStored) <= int(dataset.BitsAllocated) <= 16:
        raise ImageError(f"{dataset.BitsStored} of {dataset.BitsAllocated} bits per pixel; at most 16 are supported")
    return dataset


def _stored(dataset: Any, data: bytes) -> np.ndarray:
    """Stored values of shape (H, W), or RGB of shape (H, W, 3)."""
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
            raise ImageError("colour with more than 8 bits per channel; only grey images can have up to 16")
        return np.array(Image.fromarray(stored).convert("L"))
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise ImageError(f"pixels of shape {stored.shape}; expected a single grey image")
    displayed = _displayed(stored, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        displayed = 1 - displayed
    displayed[_padding(stored, dataset)] = 0
    return (displayed * 255 + 0.5).astype(np.uint8)


def _displayed(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Map stored values to 0..1 with the first VOI transformation; without one, the window is their range."""
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
        image_values = values[~_padding(stored, dataset)]
        low, high = (float(image_values.min()), float(image_values.max())) if image_values.size else (0.0, 0.0)
    if not np.isfinite([low, high]).all():
        raise ImageError("the window of grey levels is not finite; expected two finite numbers")
    if high <= low:
        return np.zeros(stored.shape)
    return np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), 0, 1)


def _padding(stored: np.ndarray, dataset: Any) -> np.ndarray:
    """Mask of the padding around the image (PS3.3 C.7.5.1.1.2): shown black and excluded from the range."""
    if "PixelPaddingValue" not in dataset:
        return np.zeros(stored.shape, bool)
    value = int(dataset.PixelPaddingValue)
    limit = int(dataset.get("PixelPaddingRangeLimit", value))
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
