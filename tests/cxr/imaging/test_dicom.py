"""DICOM files are read as a workstation displays them, without patient names, or refused in one line."""

import io
import tempfile
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxr.datasets import inspection
from cxr.datasets.layouts import ListedImage
from cxr.datasets.patients import pseudonym
from cxr.errors import ImageError
from cxr.imaging import decode, dicom

RNG = np.random.default_rng(0)
RAMP = np.linspace(0, 4095, 40 * 56).reshape(40, 56).astype(np.uint16)  # 12 bits
NOISE = RNG.integers(0, 4096, (40, 56), dtype=np.uint16)


def file_of(pixels: np.ndarray, syntax=ExplicitVRLittleEndian, *, bits: int = 12, **elements) -> bytes:
    """A radiograph as a DICOM file; `elements` are set in its header, or removed if None."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["a test"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.PatientID, dataset.Rows, dataset.Columns = "Doe-17", pixels.shape[0], pixels.shape[1]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if syntax == RLELossless:
        dataset.compress(RLELossless, encoding_plugin="pydicom")
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def by_gdcm(data: bytes, syntax) -> bytes:
    """Convert a file to another transfer syntax with GDCM."""
    reader = gdcm.ImageReader()
    kind = {
        JPEGLosslessSV1: "JPEGLosslessProcess14_1",
        JPEGBaseline8Bit: "JPEGBaselineProcess1",
        JPEG2000Lossless: "JPEG2000Lossless",
        JPEGLSLossless: "JPEGLSLossless",
    }[syntax]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "a.dcm"), Path(folder, "b.dcm")
        source.write_bytes(data)
        reader.SetFileName(str(source))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(target))
        assert writer.Write()
        return target.read_bytes()


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_without_a_window_the_range_of_values_is_shown(syntax):
    assert (decode.decode_grey(file_of(RAMP, syntax)) == scaled(RAMP, 0, 4095)).all()


def test_monochrome1_is_inverted():
    shown = decode.decode_grey(file_of(RAMP, PhotometricInterpretation="MONOCHROME1"))
    assert np.abs(shown.astype(int) - (255 - scaled(RAMP, 0, 4095).astype(int))).max() <= 1
    assert shown[0, 0] == 255 and shown[-1, -1] == 0


def test_a_window_acts_on_rescaled_values():
    """PS3.3 C.11.2.1.2.1: a linear window of width w around c ends at c - 0.5 -+ (w - 1) / 2."""
    shown = decode.decode_grey(
        file_of(RAMP, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3000, WindowWidth=2001)
    )
    assert np.abs(shown.astype(int) - scaled(RAMP * 2.0 - 1000, 1999.5, 3999.5)).max() <= 1


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_acts_on_values_that_a_negative_slope_turns_around(function):
    """The largest stored value is the darkest one, or in MONOCHROME1 the brightest."""
    elements = {"RescaleSlope": -1, "RescaleIntercept": 4095, "VOILUTFunction": function}
    elements |= {"WindowCenter": 1500, "WindowWidth": 2001}
    values = 4095.0 - RAMP
    expected = {
        "LINEAR": scaled(values, 499.5, 2499.5),
        "LINEAR_EXACT": scaled(values, 499.5, 2500.5),
        "SIGMOID": scaled(1 / (1 + np.exp(-4 * (values - 1500) / 2001)), 0, 1),
    }[function].astype(int)
    shown = decode.decode_grey(file_of(RAMP, **elements)).astype(int)
    assert np.abs(shown - expected).max() <= 1 and shown[0, 0] > 240 > 15 > shown[-1, -1]
    inverted = decode.decode_grey(file_of(RAMP, **elements, PhotometricInterpretation="MONOCHROME1")).astype(int)
    assert np.abs(inverted - (255 - expected)).max() <= 1 and inverted[0, 0] < 15 < 240 < inverted[-1, -1]


def test_the_first_of_several_windows_is_used():
    single = decode.decode_grey(file_of(RAMP, WindowCenter=1000, WindowWidth=501))
    both = decode.decode_grey(file_of(RAMP, WindowCenter=[1000, 2000], WindowWidth=[501, 4000]))
    assert (single == both).all() and single.min() == 0 and single.max() == 255


def test_a_voi_table_is_applied():
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    curve = (np.linspace(0, 1, 4096) ** 2 * 65535).astype("<u2")
    table.add_new("LUTData", "OW", curve.tobytes())
    shown = decode.decode_grey(file_of(NOISE, VOILUTSequence=[table]))
    assert np.abs(shown.astype(int) - scaled(curve[NOISE], 0, 65535)).max() <= 1


def test_signed_and_sixteen_bit_values_are_read():
    signed = (NOISE.astype(np.int16) - 2048).astype(np.int16)
    assert (decode.decode_grey(file_of(signed, bits=16)) == scaled(signed, signed.min(), signed.max())).all()
    deep = RNG.integers(0, 65536, (40, 56), dtype=np.uint16)
    assert (decode.decode_grey(file_of(deep, bits=16)) == scaled(deep, deep.min(), deep.max())).all()


def test_padding_is_black_and_excluded_from_the_range():
    padded = np.clip(NOISE, 1000, 2000)
    padded[:5] = 4095
    shown = decode.decode_grey(file_of(padded, PixelPaddingValue=4095))
    assert (shown[:5] == 0).all()
    assert (shown[5:] == scaled(padded[5:], padded[5:].min(), padded[5:].max())).all()


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless])
def test_losslessly_compressed_files_are_read_unchanged(syntax):
    plain = file_of(NOISE)
    assert (decode.decode_grey(by_gdcm(plain, syntax)) == decode.decode_grey(plain)).all()


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_truncated_pixels_are_refused_and_not_shown_in_part(syntax, share):
    data = file_of(NOISE, RLELossless) if syntax == RLELossless else by_gdcm(file_of(NOISE), syntax)
    dataset = pydicom.dcmread(io.BytesIO(data))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: int(share * len(frame))]])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    with pytest.raises(ImageError, match="its pixels cannot be decoded|broken data stream|amount of decoded RLE"):
        decode.decode_grey(buffer.getvalue())


def test_run_length_encoding_and_baseline_jpeg_are_read():
    assert (decode.decode_grey(file_of(NOISE, RLELossless)) == decode.decode_grey(file_of(NOISE))).all()
    blocks = np.repeat(np.repeat(RNG.integers(0, 256, (5, 7), dtype=np.uint8), 8, 0), 8, 1)
    plain = file_of(blocks, bits=8)
    lossy = decode.decode_grey(by_gdcm(plain, JPEGBaseline8Bit)).astype(int)
    assert np.abs(lossy - decode.decode_grey(plain)).mean() < 4


def test_colour_is_converted_to_luma():
    rgb = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    shown = decode.decode_grey(
        file_of(rgb, bits=8, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    )
    assert np.abs(shown - rgb @ np.array([0.299, 0.587, 0.114])).max() <= 1


def test_empty_elements_count_as_missing():
    """Many devices write elements that they have no value for."""
    empty = {"WindowCenter": "", "WindowWidth": "", "VOILUTSequence": [], "NumberOfFrames": ""}
    assert (decode.decode_grey(file_of(NOISE, **empty)) == decode.decode_grey(file_of(NOISE))).all()


def test_bits_beyond_those_stored_are_ignored():
    """Old devices keep overlays there."""
    overlaid = NOISE | (RNG.integers(0, 16, NOISE.shape, dtype=np.uint16) << 12)
    assert (decode.decode_grey(file_of(overlaid)) == decode.decode_grey(file_of(NOISE))).all()


def test_a_window_table_and_padding_act_on_signed_values():
    signed = (NOISE.astype(np.int16) - 2048).astype(np.int16)
    signed[0] = -2000
    shown = decode.decode_grey(file_of(signed, bits=16, WindowCenter=0, WindowWidth=1001, PixelPaddingValue=-2000))
    assert np.abs(shown[1:].astype(int) - scaled(signed[1:], -500.5, 499.5)).max() <= 1
    assert not shown[0].any()


def test_a_constant_image_is_black():
    assert not decode.decode_grey(file_of(np.full((40, 56), 77, np.uint16))).any()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (file_of(NOISE, NumberOfFrames=2), "2 frames; expected a single image"),
        (file_of(NOISE, PixelData=None), "without pixels"),
        (file_of(NOISE, Rows=None, BitsStored=None), "without Rows, BitsStored; expected a complete header"),
        (file_of(NOISE, PhotometricInterpretation="\x1b[2J" + "A" * 60), "photometric interpretation \ufffd.2JA{16};"),
        (file_of(NOISE, PhotometricInterpretation="PALETTE COLOR"), "photometric interpretation PALETTE COLOR"),
        (file_of(NOISE)[:-900], "damaged"),
        (file_of(NOISE)[:200], "DICOM file"),
        (file_of(NOISE, Rows=0), "must have at least 16"),
        (file_of(NOISE, DeflatedExplicitVRLittleEndian), "deflated"),
        (file_of(NOISE, Rows=60000, Columns=60000), "at most 100,000,000 in all"),
        (file_of(NOISE, WindowCenter=100, WindowWidth=-1), "damaged"),
        (b"\0" * 128 + b"DICM" + b"rubbish" * 9, "DICOM file"),
    ],
    ids=[
        "frames",
        "no pixels",
        "no size",
        "control characters",
        "palette",
        "truncated",
        "truncated header",
        "no rows",
        "deflated",
        "bomb",
        "window",
        "rubbish",
    ],
)
def test_what_cannot_be_read_correctly_is_refused_in_one_line(data, words):
    with pytest.raises(ImageError, match=words) as caught:
        decode.decode_grey(data)
    assert "\n" not in str(caught.value)


def test_patients_are_distinguished_by_issuer_and_id():
    image = decode.decode_image(file_of(NOISE))
    assert image.mode == "DICOM MONOCHROME2 12"
    assert "Doe" not in repr(image)  # which could be logged
    assert decode.decode_image(file_of(RAMP)).patient == image.patient
    assert decode.decode_image(file_of(NOISE, PatientID="Doe-18")).patient != image.patient
    assert decode.decode_image(file_of(NOISE, IssuerOfPatientID="elsewhere")).patient != image.patient
    assert decode.decode_image(file_of(NOISE, PatientID="")).patient is None


def test_a_survey_identifies_patients_by_their_dicom_files(tmp_path):
    (tmp_path / "a.dcm").write_bytes(file_of(NOISE))
    (tmp_path / "b.dcm").write_bytes(file_of(RAMP))
    (tmp_path / "c.dcm").write_bytes(file_of(RAMP, PatientID=""))
    splits = {"a": "train", "b": "test", "c": "train"}
    listing = [ListedImage(f"{name}.dcm", "normal", name, split) for name, split in splits.items()]
    table, _ = inspection.survey(tmp_path, listing, workers=1)
    patients = list(table["patient"])
    assert patients[0] == patients[1] == pseudonym("\0Doe-17")
    assert patients[2] == "train/c"
    assert "Doe-17" not in table.to_csv()


def test_other_files_are_not_taken_for_dicom():
    assert not dicom.is_dicom(b"") and not dicom.is_dicom(b"\xff\xd8" + b"\0" * 300)
