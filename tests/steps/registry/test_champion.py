"""A champion is compared with only if that is fair and possible; otherwise the reason is one line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.evaluation.out_of_fold import OutOfFold
from cxr.evaluation.scores import Sample
from steps.registry.champion import ChampionComparer
from tests.helpers import probabilities, settings_with


@pytest.fixture
def comparer(served, tmp_path):
    splits = {name: served.manifest.split(name) for name in ("val", "test")}
    context = SimpleNamespace(settings=settings_with({"cache.dir": tmp_path / "cache"}), folder=tmp_path)
    answers = {name: probabilities(served.bundle, split) for name, split in splits.items()}
    samples = {name: Sample.of(split, 0) for name, split in splits.items()}
    return ChampionComparer(context, served.manifest, samples, answers)


def version(comparer, digest: str | None = None):
    return SimpleNamespace(version="3", name="m", tags={"cxr.manifest_digest": digest or comparer.manifest.digest})


def test_another_split(comparer):
    assert "another split" in comparer.compare(version(comparer, "0" * 64)).why_not


def test_phantoms(comparer):
    of_phantoms = version(comparer, "0" * 64)
    of_phantoms.tags["cxr.synthetic"] = "true"
    assert "was trained on phantoms, these images are X-rays" in comparer.compare(of_phantoms).why_not


def test_other_classes(comparer, served, tmp_path, monkeypatch):
    for name in ("model.onnx", "ood.npz"):
        (tmp_path / name).write_bytes((served.folder / name).read_bytes())
    facts = json.loads((served.folder / "service.json").read_text()) | {"classes": ["normal", "pneumonia"]}
    (tmp_path / "service.json").write_text(json.dumps(facts))
    monkeypatch.setattr(ChampionComparer, "_fetch", lambda *_: tmp_path)
    assert "has the classes normal, pneumonia" in comparer.compare(version(comparer)).why_not


def test_files_that_are_gone(comparer, monkeypatch):
    def gone(*_):
        raise CxrError("its files are gone: no bundle among them")

    monkeypatch.setattr(ChampionComparer, "_fetch", gone)
    assert "files are gone" in comparer.compare(version(comparer)).why_not


def test_the_champion_of_folds_answers_out_of_fold(comparer, served, monkeypatch, tmp_path):
    """Its members have seen the validation images: what the served ensemble says there does not count."""
    comparer.manifest = whole = served.manifest.cross_validated()
    val = whole.split("val")
    wrong = np.roll(10 * np.eye(3)[val.labels()], 1, axis=1)
    comparer.samples["val"], comparer.probabilities["val"] = Sample.of(val, 0), np.eye(3)[val.labels()]
    OutOfFold(np.arange(len(val)) % 2, wrong).save(tmp_path, whole)
    comparer.context.fetch = lambda run_id, path: tmp_path / path.removeprefix(f"{run_id}/").rpartition("/")[2]
    monkeypatch.setattr(ChampionComparer, "_fetch", lambda *_: served.folder)
    champion = version(comparer)
    assert "does not name the run with its out-of-fold answers" in comparer.compare(champion).why_not
    champion = SimpleNamespace(version="4", name="m", tags=champion.tags | {"cxr.ensemble_run_id": "r"})
    outcome = comparer.compare(champion)
    assert outcome.validation.other["accuracy"] == 0 and outcome.validation.only_ours_right == len(val)
    assert outcome.test.differences["loss"].value == pytest.approx(0, abs=1e-6)


def test_the_same_weights_do_not_differ(comparer, served, monkeypatch):
    monkeypatch.setattr(ChampionComparer, "_fetch", lambda *_: served.folder)
    outcome = comparer.compare(version(comparer))
    assert outcome.version == 3
    for comparison in (outcome.validation, outcome.test):
        assert comparison.differences["loss"].value == pytest.approx(0, abs=1e-6)
        assert comparison.mcnemar_p == pytest.approx(1)
