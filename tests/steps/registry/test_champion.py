"""A champion that cannot be compared with fairly is not compared with, and the reason is one line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from steps.registry.champion import ChampionComparison
from tests.helpers import settings_with


@pytest.fixture
def rivals(served, tmp_path):
    part = served.manifest.split("val")
    context = SimpleNamespace(settings=settings_with({}), folder=tmp_path)
    ours = Predictor(served.bundle).predict([f.read_bytes for f in part.files()], 8)
    return ChampionComparison(context, served.manifest, {"val": Sample.of(part, 0)}, {"val": ours})


def version(rivals, digest: str | None = None):
    return SimpleNamespace(version="3", name="m", tags={"cxr.manifest_digest": digest or rivals.manifest.digest})


def test_another_split(rivals):
    assert "another split" in rivals.on("val", version(rivals, "0" * 64))


def test_other_classes(rivals, served, tmp_path, monkeypatch):
    for name in ("model.onnx", "guard.npz"):
        (tmp_path / name).write_bytes((served.folder / name).read_bytes())
    facts = json.loads((served.folder / "service.json").read_text()) | {"classes": ["normal", "pneumonia"]}
    (tmp_path / "service.json").write_text(json.dumps(facts))
    monkeypatch.setattr(ChampionComparison, "_fetch", lambda *_: tmp_path)
    assert "knows the classes normal, pneumonia" in rivals.on("val", version(rivals))


def test_files_that_are_gone(rivals, monkeypatch):
    def gone(*_):
        raise CxrError("its files are gone: no bundle among them")

    monkeypatch.setattr(ChampionComparison, "_fetch", gone)
    assert "files are gone" in rivals.on("val", version(rivals))


def test_the_same_weights_do_not_differ(rivals, served, monkeypatch):
    monkeypatch.setattr(ChampionComparison, "_fetch", lambda *_: served.folder)
    found = rivals.on("val", version(rivals))
    assert found["differences"]["loss"]["value"] == pytest.approx(0, abs=1e-6)
    assert np.isclose(found["mcnemar_p"], 1)
