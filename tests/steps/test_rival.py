"""A champion that cannot be compared with fairly is not compared with, and the reason is one line."""

from types import SimpleNamespace

import numpy as np
import pytest

from cxr import bundle
from cxr.assessment.scores import Sample
from cxr.bundle import Bundle
from cxr.errors import CxrError
from cxr.model import build
from cxr.predictor import Predictor
from steps.rival import Rivals
from tests.helpers import network, settings_with, small_set


@pytest.fixture
def rivals(tmp_path):
    manifest = small_set(tmp_path)
    part = manifest.part("val")
    context = SimpleNamespace(settings=settings_with({}), folder=tmp_path)
    ours = Predictor(Bundle(network())).predict([f.read_bytes for f in part.files()], 8)
    return Rivals(context, manifest, {"val": Sample.of(part, 0)}, {"val": ours}, "cpu")


def version(rivals, digest: str | None = None):
    return SimpleNamespace(version="3", name="m", tags={"cxr.manifest_digest": digest or rivals.manifest.digest})


def test_another_split(rivals):
    assert "another split" in rivals.on("val", version(rivals, "0" * 64))


def test_other_classes(rivals, tmp_path, monkeypatch):
    settings = settings_with({"model.input_size": 64}).model
    bundle.save(Bundle(build(settings, ("normal", "pneumonia"), seed=0)), tmp_path / "two")
    monkeypatch.setattr(Rivals, "_fetch", lambda *_: tmp_path / "two")
    assert "knows the classes normal, pneumonia" in rivals.on("val", version(rivals))


def test_files_that_are_gone(rivals, monkeypatch):
    def gone(*_):
        raise CxrError("its files are gone: no bundle among them")

    monkeypatch.setattr(Rivals, "_fetch", gone)
    assert "files are gone" in rivals.on("val", version(rivals))


def test_the_same_weights_do_not_differ(rivals, tmp_path, monkeypatch):
    bundle.save(Bundle(network()), tmp_path / "same")
    monkeypatch.setattr(Rivals, "_fetch", lambda *_: tmp_path / "same")
    found = rivals.on("val", version(rivals))
    assert found["differences"]["loss"]["value"] == pytest.approx(0, abs=1e-6)
    assert np.isclose(found["mcnemar_p"], 1)
