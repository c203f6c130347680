"""Without its images, a bundle is served with what another version has learnt from them."""

import json
import shutil

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.models.bundle import Bundle
from cxr.packaging import carry
from cxr.serving.service import CONFIG, Service
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
