"""A thousand damaged files: each is answered or refused in one line, nothing else is raised, and memory stays."""

import base64
import io

import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from cxr.datasets import phantom
from cxr.serving.mlflow_model import Refused, ServedModel
from cxr.serving.service import Service
from tests.cxr.imaging.test_dicom import NOISE, by_gdcm, file_of
from tests.helpers import png

GROWTH = 100e6  # bytes; what keeps a megabyte of each file would show


def saved(kind: str, mode: str = "L", **options: object) -> bytes:
    picture = Image.open(io.BytesIO(phantom.example("virus"))).resize((120, 100)).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    "JPEG": [saved("JPEG"), saved("JPEG", progressive=True), saved("JPEG", "RGB"), saved("JPEG", "CMYK")],
    "PNG": [saved("PNG"), saved("PNG", "P"), saved("PNG", "RGBA"), png(NOISE)],
    "TIFF": [saved("TIFF"), saved("TIFF", compression="tiff_lzw"), saved("TIFF", "RGB", compression="jpeg")],
    "BMP": [saved("BMP"), saved("BMP", "P")],
    "DICOM": [
        file_of(NOISE), file_of(NOISE, RLELossless), file_of(NOISE, WindowCenter=2000, WindowWidth=900),
        *(by_gdcm(file_of(NOISE), syntax) for syntax in (JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless)),
    ],
}  # fmt: skip

PLACES = st.one_of(st.integers(0, 400), st.integers(0, 2**16))  # headers are where the damage is done
HOW = st.sampled_from(["replace", "insert", "delete", "cut", "repeat"])
EDITS = st.lists(st.tuples(HOW, PLACES, st.binary(min_size=1, max_size=6)), min_size=1, max_size=5)
CELLS = st.one_of(
    st.none(), st.binary(max_size=200), st.text(max_size=200), st.integers(), st.floats(), st.booleans(),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)  # fmt: skip


def damaged(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for how, place, new in edits:
        at = place % (len(data) + 1)
        if how == "replace":
            data = data[:at] + new + data[at + len(new) :]
        elif how == "insert":
            data = data[:at] + new + data[at:]
        elif how == "delete":
            data = data[:at] + data[at + len(new) :]
        elif how == "cut":
            data = data[:at]
        else:
            data = data[:at] + data[at : at + 40] + data[at:]
    return data


@pytest.fixture(scope="module")
def model(served) -> ServedModel:
    made = ServedModel()
    made.service = Service(served.folder, threads=2)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [200, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", FILES)
def test_damaged_files_are_answered_or_refused(model, kind, rounds):
    process, started = psutil.Process(), []

    @settings(max_examples=rounds, derandomize=True, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.integers(0, len(FILES[kind]) - 1), EDITS)
    def check(number, edits):
        if len(started) < 1 and len(seen) == 80:
            started.append(process.memory_info().rss)
        body = damaged(FILES[kind][number], edits)
        seen.append(len(body))
        [row] = model.predict(None, pd.DataFrame({"image": [body]}), {"strict": False}).to_dict("records")
        assert row["status"] in ("ok", "refer", "error")
        assert "\n" not in row["reasons"] and len(row["reasons"]) < 600
        if row["status"] == "error":
            assert row["reasons"] and row["label"] is None
            with pytest.raises(Refused, match="^row 0: "):
                model.predict(None, pd.DataFrame({"image": [body]}))
        else:
            assert row["probability_normal"] >= 0

    seen: list[int] = []
    check()
    assert len(seen) >= rounds * 0.9
    assert process.memory_info().rss - started[0] < GROWTH


@pytest.mark.slow
@settings(max_examples=200, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(CELLS)
def test_cells_of_any_kind_are_refused_in_one_line(model, cell):
    table = pd.DataFrame({"image": pd.Series([cell], dtype=object)})
    [row] = model.predict(None, table, {"strict": False}).to_dict("records")
    assert row["status"] == "error" and "\n" not in row["reasons"]


def test_a_whole_file_passes(model):
    for kind, files in FILES.items():
        for data in files:
            text = base64.b64encode(data).decode()
            [row] = model.predict(None, pd.DataFrame({"image": [text]}), {"strict": False}).to_dict("records")
            assert (row["status"] != "error") == (data != FILES["JPEG"][3]), (kind, row["reasons"])
    assert np.isfinite(row["probability_normal"])
