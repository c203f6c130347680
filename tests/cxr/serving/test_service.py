"""One row for every picture, the same columns always, in the order given."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.errors import CxrError, ImageError
from cxr.imaging import reader
from cxr.serving import service as module
from cxr.serving.service import Row, Service, column_types, columns
from tests.helpers import CLASSES, deployed, png

ROOT = Path(__file__).resolve().parents[3]
BAD = base64.b64encode(b"some text").decode()


@pytest.fixture(scope="module")
def service(served) -> Service:
    return Service(served.folder, threads=2, version="7")


@pytest.fixture(scope="module")
def pictures(served) -> list[bytes]:
    return [file.read_bytes() for file in served.manifest.split("val").files()]


def test_the_columns_of_an_answer(service, pictures):
    table = service.answer(pictures[:1])
    assert list(table) == columns(CLASSES, "pneumonia") == [
        "label", "probability_normal", "probability_bacteria", "probability_virus", "probability_pneumonia",
        "operating_point", "decision", "status", "reasons", "heatmap", "model_version",
    ]  # fmt: skip
    row = table.iloc[0]
    assert row["probability_pneumonia"] == pytest.approx(row["probability_bacteria"] + row["probability_virus"])
    assert row["operating_point"] == "argmax" and row["model_version"] == "7" and row["heatmap"] is None
    assert list(service.answer([])) == list(table) and len(service.answer([])) == 0
    assert columns(("normal", "pneumonia"), "pneumonia").count("probability_pneumonia") == 1


def test_rows_keep_their_order_however_many_there_are(service, pictures):
    alone = [service.answer([one])["probability_normal"][0] for one in pictures]
    together = service.answer(pictures * 3)["probability_normal"]
    np.testing.assert_allclose(together, alone * 3, atol=1e-6)


def test_threads_get_their_own_answers(service, pictures):
    wanted = [service.answer([one])["probability_normal"][0] for one in pictures]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: service.answer([one])["probability_normal"][0], pictures * 4))
    np.testing.assert_allclose(found, wanted * 4, atol=1e-6)


def test_another_model_in_its_folder_changes_no_answer(served, pictures, tmp_path):
    """A service that is running answers as one model, until it is started again."""
    folder = Path(shutil.copytree(served.folder, tmp_path / "model"))
    running = Service(folder, threads=2)
    before = running.answer(pictures, with_heatmap=True)
    shutil.rmtree(folder)
    folder.mkdir()
    for file in served.folder.iterdir():
        (folder / file.name).write_bytes(b"of another model")
    pd.testing.assert_frame_equal(running.answer(pictures, with_heatmap=True), before)
    with pytest.raises(CxrError):
        Service(folder, threads=2)


def test_no_more_pictures_are_decoded_at_once_than_there_are_cores(service, pictures, monkeypatch):
    busy, most, plain = [], [], reader.decode_image

    def watched(*arguments):
        busy.append(1)
        most.append(len(busy))
        time.sleep(0.01)
        try:
            return plain(*arguments)
        finally:
            busy.pop()

    monkeypatch.setattr(reader, "decode_image", watched)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: service.answer([one]), pictures[:16]))
    assert max(most) == 2


def test_large_pictures_leave_cores_to_others(served, pictures, monkeypatch):
    """However many large pictures are being decoded, a small one is answered."""
    monkeypatch.setattr(module, "_LARGE", 10_000)
    over, plain = threading.Event(), reader.decode_image
    large = png(np.random.default_rng(0).integers(0, 256, (120, 120), dtype=np.uint8))
    patient = Service(served.folder, threads=2)

    def slow(data, *options):
        image = plain(data, *options)
        if data == large:
            assert over.wait(60)
        return image

    monkeypatch.setattr(reader, "decode_image", slow)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(patient.answer, [large]) for _ in range(4)]
        try:
            small = [pool.submit(patient.answer, [one]) for one in pictures[:8]]
            assert [answer.result(30)["status"][0] for answer in small]
            assert not any(one.done() for one in waiting)
        finally:
            over.set()
        assert [one.result(30)["label"][0] for one in waiting]


def test_operating_points_decide(service, pictures):
    for point, threshold in POINTS.items():
        for row in service.answer(pictures, point=point).itertuples():
            positive = row.probability_pneumonia >= threshold
            assert row.label == max(CLASSES, key=lambda name: getattr(row, f"probability_{name}"))
            assert row.operating_point == point
            if row.status == "ok":
                assert row.decision == ("pneumonia" if positive else "normal") and row.reasons == ""
            else:
                assert row.decision is None and row.reasons
    with pytest.raises(ImageError, match="unknown operating_point; expected one of argmax, youden, sensitive"):
        service.answer(pictures[:1], point="best")


def test_an_undecided_answer_refers(served, pictures):
    cautious = Service(served.folder, threads=1)
    cautious.bands["argmax"] = (0.0, 1.0)
    table = cautious.answer(pictures)
    assert set(table["status"]) == {"refer"}
    assert all("undecided (probability of pneumonia" in reasons for reasons in table["reasons"])


POINTS = {"argmax": 0.5, "youden": 0.6, "sensitive": 0.3}


def test_one_bad_picture_fails_the_request_or_its_own_row(service, pictures):
    mixed = [pictures[0], BAD, None, pictures[1]]
    with pytest.raises(ImageError, match="^row 1: not an image in a known format"):
        service.answer(mixed)
    table = service.answer(mixed, strict=False)
    assert list(table["status"])[1:3] == ["error", "error"]
    assert table["label"][1] is None and table["probability_normal"][1] is None
    assert "no image" in table["reasons"][2]
    for row, own in ((0, pictures[0]), (3, pictures[1])):
        assert table["probability_normal"][row] == pytest.approx(
            service.answer([own])["probability_normal"][0], abs=1e-6
        )
    assert list(service.answer([BAD], strict=False)["status"]) == ["error"]


def test_a_heatmap_is_a_picture_of_the_input_size(service, pictures):
    table = service.answer(pictures[:2], with_heatmap=True)
    for text in table["heatmap"]:
        assert Image.open(io.BytesIO(base64.b64decode(text))).size == (64, 64)


@pytest.mark.slow
def test_limits(pictures, tmp_path):
    small = Service(deployed(tmp_path, max_images=3, max_bytes=5000, max_pixels=10_000).folder, threads=1)
    with pytest.raises(ImageError, match="4 images in one request; at most 3"):
        small.answer(pictures[:4])
    with pytest.raises(ImageError, match="row 0: .* bytes; at most 5,000"):
        small.answer([png(np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8))])
    with pytest.raises(ImageError, match="row 0: 200 x 200 pixels; at most 10,000 in all"):
        small.answer([png(np.zeros((200, 200), np.uint8))])


@pytest.mark.slow
def test_serving_needs_no_torch(served, pictures, tmp_path):
    """In a process where the packages of training cannot be imported."""
    (tmp_path / "one.png").write_bytes(pictures[0])
    code = f"""
import sys
for name in ("torch", "torchvision", "torchmetrics", "sklearn", "scipy", "matplotlib", "onnx"):
    sys.modules[name] = None
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from types import SimpleNamespace
import pandas as pd
from cxr.serving.mlflow_model import ServedModel
model = ServedModel()
model.load_context(SimpleNamespace(artifacts={{"service": {str(served.folder)!r}}}))
print(model.predict(None, pd.DataFrame({{"image": [Path({str(tmp_path / "one.png")!r}).read_bytes()]}}))["label"][0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in CLASSES


def test_serving_leaves_nothing_in_the_folders_of_the_user(served, tmp_path):
    """ONNX Runtime writes a device ID there unless its telemetry is off before it is imported."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from cxr.serving.service import Service\n"
        f"Service({str(served.folder)!r}, threads=1)\n"
    )
    folders = {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | folders
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert not list(tmp_path.iterdir())


ALWAYS = ["operating_point", "decision", "status", "reasons", "heatmap", "model_version"]


@pytest.mark.parametrize(
    ("classes", "finding", "probabilities"),
    [
        (("normal", "pneumonia"), "pneumonia", ["normal", "pneumonia"]),
        (("normal", "bacteria", "virus"), "pneumonia", ["normal", "bacteria", "virus", "pneumonia"]),
        (("healthy", "tuberculosis"), "tuberculosis", ["healthy", "tuberculosis"]),
        (("clear", "mass", "effusion"), "opacity", ["clear", "mass", "effusion", "opacity"]),
    ],
)
def test_the_columns_follow_the_classes_and_the_finding(classes, finding, probabilities):
    wanted = ["label", *(f"probability_{name}" for name in probabilities), *ALWAYS]
    assert columns(classes, finding) == wanted
    types = ["double" if name.startswith("probability") else "string" for name in wanted]
    assert column_types(classes, finding) == dict(zip(wanted, types, strict=True))


def test_answers_are_about_the_finding_of_the_model(served, service, pictures, tmp_path):
    """A version without one is of pneumonia."""
    assert service.finding == "pneumonia" and "finding" not in (served.folder / "service.json").read_text()
    folder = shutil.copytree(served.folder, tmp_path / "own")
    facts = json.loads((folder / "service.json").read_text())
    facts |= {
        "classes": ["clear", "mass", "effusion"],
        "finding": "opacity",
        "bands": {name: [at, at] for name, at in POINTS.items()},
    }
    (folder / "service.json").write_text(json.dumps(facts))
    own = Service(folder, threads=2)
    told = own.table(own.records_of([Row(own.read(one).image) for one in pictures], "argmax"))
    told = told[told["status"] == "ok"]
    positive = told["probability_mass"] + told["probability_effusion"]
    np.testing.assert_allclose(told["probability_opacity"], positive, atol=1e-9)
    assert list(told["decision"]) == ["opacity" if p >= 0.5 else "clear" for p in positive] != []
    own.bands["argmax"] = (0.0, 1.0)
    reasons = own.answer(pictures[:1])["reasons"][0]
    assert "undecided (probability of opacity" in reasons
