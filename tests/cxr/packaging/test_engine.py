"""OpenVINO serves a version only if it answers as the evaluated network does."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.packaging import engine
from cxr.packaging.engine import Candidate, Proof, choose_engine, prove
from cxr.serving import decision, openvino_session
from cxr.serving.engines import open_session
from cxr.serving.openvino_session import OpenVinoSession
from cxr.serving.service import CONFIG, MODEL, Service
from cxr.serving.session import Session
from steps.registry.identity import requirements
from tests.helpers import ROOT, datasets, deployed, probabilities

RASTERS = np.random.default_rng(0).integers(0, 256, (5, 64, 64), dtype=np.uint8)


pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def case(served) -> Candidate:
    """What `choose_engine` is given for the served model."""
    network = (served.folder / MODEL).read_bytes()
    val = served.manifest.split("val")
    return Candidate(
        network=network,
        session=Session(network, 2, 64),
        images=datasets(served.bundle, served.manifest)["val"],
        evaluated=probabilities(served.bundle, val),
        temperature=served.bundle.temperature,
        thresholds=decision.operating_points(served.bundle.operating_points),
    )


def test_both_engines_answer_alike(served):
    ours, theirs = (open_session(name, served.folder / MODEL, 2, 64) for name in ("onnxruntime", "openvino"))
    for rasters in (RASTERS[:1], RASTERS, RASTERS[:2]):
        for one, other in zip(ours.run(rasters), theirs.run(rasters), strict=True):
            assert one.dtype == other.dtype == np.float32 and one.shape == other.shape
            np.testing.assert_allclose(one, other, atol=1e-3, rtol=1e-3)
    kept = theirs.run(RASTERS)[0]
    before = kept.copy()
    theirs.run(255 - RASTERS)
    assert (kept == before).all()


def test_it_computes_in_single_precision_with_the_threads_it_is_given(served):
    requests = OpenVinoSession(served.folder / MODEL, 2, 64)._requests
    for threads, at_once in ((2, 1), (1, 2)):
        assert requests[threads].qsize() == at_once
        model = requests[threads].get().get_compiled_model()
        assert model.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
        assert model.get_property("INFERENCE_NUM_THREADS") == 2 and model.get_property("NUM_STREAMS") == at_once


def test_a_proof_counts_what_changes(case):
    session, images = OpenVinoSession(case.network, 2, 64), case.images
    rest = (images, case.evaluated, case.temperature, case.thresholds)
    found = prove(session, *rest)
    difference = found.difference
    assert found.holds and difference < 1e-4
    moved = case.evaluated.copy()
    moved[0] = moved[0][::-1]
    found = prove(session, images, moved, *rest[2:])
    assert not found.holds and found.changed >= 1
    assert not Proof(2e-3, 0).holds and not Proof(0.0, 1).holds and not Proof(float("nan"), 0).holds
    margin = difference + 1e-6  # between what OpenVINO answers and the threshold, on any CPU
    at_threshold = dict.fromkeys(case.thresholds, float(1 - case.evaluated[0, 0]) + margin)
    lowered = case.evaluated.copy()
    lowered[0, 0] -= 2 * margin
    assert prove(session, images, lowered, case.temperature, at_threshold).changed >= 1


def test_auto_takes_the_faster_engine_and_says_why(case, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    for times, wanted in ((((9.0, 5.0), (70.0, 60.0)), "openvino"), (((5.0, 5.0), (70.0, 60.0)), "onnxruntime"),
                          (((9.0, 5.0), (60.0, 70.0)), "onnxruntime")):  # fmt: skip
        monkeypatch.setattr(engine, "speeds", lambda *_, told=times: told)
        assert choose_engine("auto", case) == wanted
        assert f"OpenVINO takes {times[0][1]:.1f} ms for one image" in caplog.messages[-1]
    assert choose_engine("openvino", case) == "openvino"
    assert choose_engine("onnxruntime", case) == "onnxruntime"


def test_what_fails_the_proof_is_not_taken(case, caplog):
    caplog.set_level(logging.INFO)
    other = replace(case, evaluated=case.evaluated[:, ::-1])
    assert choose_engine("auto", other) == "onnxruntime"
    assert "OpenVINO answers otherwise" in caplog.messages[-1]
    with pytest.raises(
        CxrError, match=r"serving\.engine=openvino: OpenVINO answers otherwise .*set serving\.engine=onnx"
    ):
        choose_engine("openvino", other)
    with pytest.raises(CxrError, match="no validation images to prove it on"):
        choose_engine("openvino", replace(case, images=None))


def test_without_openvino(case, served, monkeypatch, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert choose_engine("auto", case) == "onnxruntime"
    assert "OpenVINO is not installed" in caplog.messages[-1]
    with pytest.raises(CxrError, match="not installed; pip install -r requirements-openvino.txt"):
        choose_engine("openvino", case)
    folder = with_engine(served.folder, tmp_path / "a", "openvino")
    with pytest.raises(CxrError, match="not installed; pip install -r requirements-openvino.txt"):
        Service(folder, threads=1)
    with pytest.raises(CxrError, match="serving engine 'other'; this version knows onnxruntime, openvino"):
        Service(with_engine(served.folder, tmp_path / "b", "other"), threads=1)
    assert not openvino_session.is_installed()


def with_engine(folder: Path, copy: Path, name: str) -> Path:
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / CONFIG).read_text())
    (copy / CONFIG).write_text(json.dumps(config | {"engine": name}))
    return copy


@pytest.mark.slow
def test_a_version_says_what_it_was_proven_with(served, tmp_path):
    made = deployed(tmp_path, engine="openvino")
    assert made.result.engine == "openvino" and served.result.engine == "onnxruntime"
    assert json.loads((made.folder / CONFIG).read_text())["engine"] == "openvino"
    service = Service(made.folder, threads=2)
    assert service.engine == "openvino"
    split = made.manifest.split("test")
    table = service.answer([file.read_bytes() for file in split.files()])
    answered = table[[f"probability_{name}" for name in made.manifest.classes]].to_numpy()
    np.testing.assert_allclose(answered, probabilities(made.bundle, split), atol=1e-4)


def test_only_a_version_that_needs_it_requires_openvino():
    plain, more = requirements(), requirements("openvino")
    assert not [line for line in plain if line.startswith("openvino")]
    assert [line for line in more if line.startswith("openvino==")] and set(plain) <= set(more)
    names = [line.split("==")[0] + line.partition(";")[2] for line in more]
    assert len(names) == len(set(names))


@pytest.mark.slow
def test_nothing_is_left_in_the_home_folder_and_nothing_is_told(served, tmp_path):
    """Its telemetry would leave an ID there."""
    code = (
        "import sys; from pathlib import Path; from cxr.serving.openvino_session import OpenVinoSession; "
        "OpenVinoSession(Path(sys.argv[1]), 1, 64); assert not sys.modules['openvino_telemetry']"
    )
    environment = {"PATH": "", "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, str(served.folder / MODEL)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert not list(tmp_path.iterdir())
