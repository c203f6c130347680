"""Without its images, a bundle is served with what another version has learnt from them."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.models.bundle import Bundle
from cxr.packaging import carry
from cxr.serving.service import CONFIG, Service
from cxr.serving.session import Session
from tests.helpers import network, settings_with

BEFORE = settings_with({}).serving.model_dump()


def settings(**serving):
    return settings_with({f"serving.{name}": value for name, value in serving.items()}).serving


def test_it_answers_as_the_other_version_within_other_limits(served, tmp_path):
    carry.write(tmp_path / "s", served.bundle, served.folder, settings(max_images=5), BEFORE)
    old, new = Service(served.folder, threads=2), Service(tmp_path / "s", threads=2)
    images = [file.read_bytes() for file in served.manifest.files()[:5]]
    ours, theirs = old.answer(images), new.answer(images)
    numbers = [name for name in ours if name.startswith("probability_")]
    np.testing.assert_allclose(ours[numbers], theirs[numbers], atol=1e-6)
    assert ours.drop(columns=[*numbers, "reasons"]).equals(theirs.drop(columns=[*numbers, "reasons"]))
    assert new.limits.max_images == 5 and old.limits.max_images == 64


def test_another_operating_point_needs_no_images(served, tmp_path):
    carry.write(tmp_path / "s", served.bundle, served.folder, settings(operating_point="sensitive"), BEFORE)
    assert Service(tmp_path / "s", threads=1).operating_point == "sensitive"
    bare = Bundle(served.bundle.network, served.bundle.temperature)
    with pytest.raises(CxrError, match="operating_point=youden; this bundle has argmax"):
        carry.write(tmp_path / "t", bare, served.folder, settings(operating_point="youden"), BEFORE)


@pytest.mark.parametrize("name, value", [("ood_share", 0.02), ("ood_images", 50)])
def test_settings_that_take_images_are_refused(served, tmp_path, name, value):
    with pytest.raises(CxrError, match=rf"serving\.{name} takes the images"):
        carry.write(tmp_path / "s", served.bundle, served.folder, settings(**{name: value}), BEFORE)
    without = {key: value for key, value in BEFORE.items() if key != name}
    with pytest.raises(CxrError, match=rf"serving\.{name} takes the images"):  # it is new since then
        carry.write(tmp_path / "s", served.bundle, served.folder, settings(), without)


def test_a_damaged_or_older_version_has_nothing_to_carry_over(served, tmp_path):
    folder = shutil.copytree(served.folder, tmp_path / "old")
    (folder / "ood.npz").write_bytes(b"cut")
    with pytest.raises(CxrError, match=r"ood\.npz is not the one that service\.json names"):
        carry.write(tmp_path / "s", served.bundle, folder, settings(), BEFORE)
    facts = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(facts | {"format": 1}))
    with pytest.raises(CxrError, match="its format is 1, and what format . has besides is chosen on images"):
        carry.write(tmp_path / "s", served.bundle, folder, settings(), BEFORE)
    (folder / CONFIG).write_text("{")
    with pytest.raises(CxrError, match="its served files are damaged"):
        carry.write(tmp_path / "s", served.bundle, folder, settings(), BEFORE)
    assert not (tmp_path / "s").exists()


def test_a_network_that_answers_otherwise_as_onnx_is_refused(served, tmp_path, monkeypatch):
    other = carry.to_onnx(Bundle(network(seed=7), 1.3))
    monkeypatch.setattr(carry, "to_onnx", lambda bundle: other)
    with pytest.raises(CxrError, match="as ONNX gives other probabilities"):
        carry.write(tmp_path / "s", served.bundle, served.folder, settings(), BEFORE)


@pytest.fixture
def with_openvino(served, tmp_path, monkeypatch):
    """A version that OpenVINO serves, and a function that says what OpenVINO makes of the logits of this network."""
    folder = shutil.copytree(served.folder, tmp_path / "with-openvino")
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"engine": "openvino"}))
    turned = {"by": 0.0}

    def opened(engine, network, threads, size):
        session = Session(network, threads, size)
        by = turned["by"] if engine == "openvino" else 0.0
        return SimpleNamespace(logits=lambda rasters: session.logits(rasters) + by * np.eye(3)[0])

    monkeypatch.setattr(carry, "open_session", opened)
    return folder, lambda by: turned.update(by=by)


def carried(served, folder, target, now: str, before: str) -> str:
    carry.write(target, served.bundle, folder, settings(engine=now), BEFORE | {"engine": before})
    return json.loads((target / CONFIG).read_text())["engine"]


@pytest.mark.parametrize("wanted", ["openvino", "auto"])
def test_another_engine_is_kept_if_it_answers_phantoms_as_the_bundle_does(
    served, with_openvino, tmp_path, wanted, caplog
):
    folder, moved_by = with_openvino
    assert carried(served, folder, tmp_path / "a", wanted, wanted) == "openvino"
    moved_by(0.05)  # of a logit; a probability may change by 1e-3
    if wanted == "auto":
        assert carried(served, folder, tmp_path / "b", wanted, wanted) == "onnxruntime"
        assert "serving.engine=auto: onnxruntime, since openvino answers phantoms otherwise" in caplog.text
        return
    with pytest.raises(CxrError, match=r"serving\.engine=openvino: openvino answers .*; set serving\.engine=onnxrun"):
        carried(served, folder, tmp_path / "b", wanted, wanted)


def test_onnx_runtime_can_always_be_taken_and_openvino_never_without_images(served, with_openvino, tmp_path):
    folder, moved_by = with_openvino
    moved_by(9.0)
    assert carried(served, folder, tmp_path / "a", "onnxruntime", "openvino") == "onnxruntime"
    with pytest.raises(CxrError, match=r"serving\.engine takes the images"):
        carried(served, served.folder, tmp_path / "b", "openvino", "onnxruntime")
    assert carried(served, served.folder, tmp_path / "c", "auto", "auto") == "onnxruntime"
