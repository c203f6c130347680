"""What the tests of the archive need: radiographs with whole headers, a model that answers, and its rows."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from pydicom.uid import DigitalXRayImageStorageForPresentation

from cxr.archive.identity import Model
from cxr.imaging import heatmap
from cxr.serving.service import columns, png
from tests.cxr.imaging.test_dicom import file_of

MODEL = Model(
    name="cxr-pneumonia",
    version="3",
    digest="5f" * 32,
    classes=("normal", "bacteria", "virus"),
    finding="pneumonia",
    thresholds={"argmax": 0.5, "sensitive": 0.2},
    bands={"argmax": (0.4, 0.6), "sensitive": (0.14, 0.27)},
    resize_mode="squash",
)
STUDY, SERIES = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.1.2"
FALSE_WARNINGS = (
    # PS3.16, 8 lets private coding schemes begin with 99; dciodvfy knows none.
    "Unrecognized defined term <99CXR> for value 1 of attribute <Coding Scheme Designator>",
    # Elements that may be empty, and are, where the image has none.
    "Missing attribute or value that would be needed to build DICOMDIR",
)


def picture(seed: int = 0, rows: int = 120, columns: int = 160) -> np.ndarray:
    """Grey levels that differ with the seed, 12 bits."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4096, (rows, columns), dtype=np.uint16)


def radiograph(number: int = 1, *, study: str = STUDY, pixels: np.ndarray | None = None, **elements) -> bytes:
    """A radiograph as an archive holds it; `elements` replace those of its header, None removes them."""
    header = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": f"{SERIES}.{number}",
        "StudyInstanceUID": study,
        "SeriesInstanceUID": SERIES if study == STUDY else f"{study}.2",
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": "Müller^Jürgen",
        "PatientID": "0012",
        "PatientBirthDate": "19700228",
        "PatientSex": "M",
        "StudyDate": "20261128",
        "StudyTime": "101500",
        "StudyID": "7",
        "AccessionNumber": "A-99",
        "ReferringPhysicianName": "Doc^Tor",
        "Modality": "DX",
        "Manufacturer": "Maker of devices",
        "InstanceNumber": number,
        "PatientOrientation": ["L", "F"],
    } | elements
    data = {name: value for name, value in header.items() if value is not None or name == "PatientID"}
    return file_of(picture(number) if pixels is None else pixels, **data)


def answer(**cells) -> dict[str, object]:
    """A row that answers pneumonia; `cells` replace some of it."""
    rng = np.random.default_rng(0)
    raster = rng.integers(0, 256, (64, 64), dtype=np.uint8)
    row = {
        "label": "virus",
        "probability_normal": 0.0123456,
        "probability_bacteria": 0.12,
        "probability_virus": 0.8676544,
        "probability_pneumonia": 0.9876544,
        "operating_point": "argmax",
        "decision": "pneumonia",
        "status": "ok",
        "reasons": "",
        "heatmap": png(heatmap.overlay(raster, np.eye(4, dtype=np.float32))),
        "model_version": "3",
    }
    assert list(row) == columns(MODEL.classes, MODEL.finding)
    return row | cells


def referral(reasons: str = "blank; undecided (probability of pneumonia 0.5, between 0.4 and 0.6)") -> dict:
    """A row that refers."""
    return answer(status="refer", decision=None, reasons=reasons)


def rows(*answers: dict) -> pd.DataFrame:
    return pd.DataFrame(list(answers)).astype(object)


def validated(data: bytes, folder) -> list[str]:
    """Errors and warnings of dciodvfy on a file, without those known to be false; skips where it is missing."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("no dciodvfy; it is in Debian's package dicom3tools")
    file = folder / "validated.dcm"
    file.write_bytes(data)
    done = subprocess.run([program, str(file)], capture_output=True, text=True, timeout=60, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    said = [line for line in lines if line.startswith(("Error", "Warning"))]
    return [line for line in said if not any(known in line for known in FALSE_WARNINGS)]
