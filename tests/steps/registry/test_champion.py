"""A champion is compared with only if that is fair and possible; otherwise the reason is one line."""

import errno
import json
import os
import re
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE

from cxr.errors import CxrError, ImageError
from cxr.evaluation.out_of_fold import OutOfFold
from cxr.evaluation.scores import Sample
from cxr.imaging.reader import ImageReader
from steps.registry import seen
from steps.registry.champion import ChampionComparer
from steps.runtime.disks import UnreachableError
from steps.runtime.outage import AwayError
from tests.helpers import probabilities, settings_with


@pytest.fixture
def comparer(served, tmp_path):
    splits = {name: served.manifest.split(name) for name in ("val", "test")}
    context = SimpleNamespace(settings=settings_with({"cache.dir": tmp_path / "cache"}), folder=tmp_path)
    answers = {name: probabilities(served.bundle, split) for name, split in splits.items()}
    samples = {name: Sample.of(split, 0) for name, split in splits.items()}
    return ChampionComparer(context, served.manifest, "here", samples, answers)


def version(comparer, digest: str | None = None):
    return SimpleNamespace(version="3", name="m", tags={"cxr.manifest_digest": digest or comparer.manifest.digest})


@pytest.fixture
def of_another_split(comparer, served, monkeypatch):
    """Function that makes the champion one of another split that has seen these images; returns the comparison."""
    monkeypatch.setattr(ChampionComparer, "_fetch", lambda *_: served.folder)

    def compare(paths, least: int = 10):
        monkeypatch.setattr(seen, "seen", lambda context, here, there: pd.DataFrame({"path": paths}))
        comparer.context.settings = settings_with({
            "registry.gate.least_images": least, "cache.dir": comparer.context.folder / "cache"})  # fmt: skip
        champion = version(comparer, "0" * 64)
        champion.tags["cxr.split_run_id"] = "there"
        return comparer.compare(champion)

    return compare


def test_a_champion_of_another_split_is_compared_on_what_it_has_not_seen(comparer, served, of_another_split):
    val, test = (served.manifest.split(name).rows["path"] for name in ("val", "test"))
    comparer.probabilities["val"][:4] = np.roll(np.eye(3)[served.manifest.split("val").labels()[:4]], 1, axis=1)
    outcome = of_another_split([*val[:4], *test[5:]])
    assert (outcome.validation.images, outcome.validation.left_out) == (len(val) - 4, 4)
    assert (outcome.test.images, outcome.test.left_out) == (5, len(test) - 5)
    assert outcome.validation.differences["accuracy"].value == 0  # what this model got wrong is left out
    comparer._outcomes.clear()
    outcome = of_another_split([])
    assert (outcome.validation.left_out, outcome.test.left_out) == (0, 0)
    assert outcome.validation.differences["accuracy"].value < 0


def test_a_champion_that_has_seen_all_test_images_is_compared_on_validation_alone(served, of_another_split):
    outcome = of_another_split(list(served.manifest.split("test").rows["path"]))
    assert outcome.test is None and outcome.validation.left_out == 0


def test_a_champion_that_has_seen_too_much_stays(served, of_another_split):
    val = served.manifest.split("val").rows["path"]
    why_not = of_another_split(val[5:], least=6).why_not
    assert f"was trained on another split, and only 5 of the {len(val)} validation images here are new to it" in why_not
    assert "expected at least 6 (registry.gate.least_images); otherwise move the alias by hand" in why_not


def test_a_champion_that_has_seen_all_images_of_a_class_stays(served, of_another_split):
    rows = served.manifest.split("val").rows
    why_not = of_another_split(rows["path"][rows["label"] == "virus"]).why_not
    assert "none of the 12 validation images here that are new to it is virus" in why_not


def test_a_champion_that_does_not_name_its_split_stays(comparer, served, monkeypatch):
    monkeypatch.setattr(ChampionComparer, "_fetch", lambda *_: served.folder)
    why_not = comparer.compare(version(comparer, "0" * 64)).why_not
    assert "was trained on another split, and does not name the run that made it; otherwise move" in why_not


def test_phantoms(comparer):
    of_phantoms = version(comparer, "0" * 64)
    of_phantoms.tags["cxr.synthetic"] = "true"
    assert "was trained on phantoms, these images are X-rays" in comparer.compare(of_phantoms).why_not


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            {"classes": ["normal", "pneumonia"]},
            "has the classes normal, pneumonia, so that another champion would change the columns",
        ),
        ({"finding": "infection"}, "has the finding infection, which names columns of every answer"),
    ],
)
def test_other_classes(comparer, served, tmp_path, monkeypatch, facts, words):
    for name in ("model.onnx", "ood.npz"):
        (tmp_path / name).write_bytes((served.folder / name).read_bytes())
    facts = json.loads((served.folder / "service.json").read_text()) | facts
    (tmp_path / "service.json").write_text(json.dumps(facts))
    monkeypatch.setattr(ChampionComparer, "_fetch", lambda *_: tmp_path)
    why_not = comparer.compare(version(comparer, "0" * 64)).why_not  # of another split as well: that may change
    assert words in why_not


def test_files_that_are_gone(comparer, monkeypatch):
    def gone(*_):
        raise CxrError("its files are gone: no bundle among them")

    monkeypatch.setattr(ChampionComparer, "_fetch", gone)
    assert "files are gone" in comparer.compare(version(comparer)).why_not


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch"), "cannot be written"),
        (MlflowException("(sqlite3.OperationalError) database is locked", TEMPORARILY_UNAVAILABLE), "is locked"),
        (MlflowException("refused", PERMISSION_DENIED), "may not be read (refused)"),
        (MlflowException("1 failed:\n[Errno 13] Permission denied: '/x'"), "may not be read ([Errno 13]"),
        (AwayError("the MLflow store has not answered"), "has not answered"),
    ],
)
def test_what_may_pass_is_no_reason_against_a_comparison(comparer, monkeypatch, error, words):
    def fail(**_):
        raise error

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", fail)
    with pytest.raises(UnreachableError, match=re.escape(words)):
        comparer.compare(version(comparer))


def test_files_that_cannot_be_downloaded_since_they_are_gone(comparer, monkeypatch):
    def fail(**_):
        raise MlflowException("No such artifact: 'model'", RESOURCE_DOES_NOT_EXIST)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", fail)
    assert "cannot be loaded (the files of models:/m/3 are gone" in comparer.compare(version(comparer)).why_not


def test_a_split_that_cannot_be_fetched_now_is_no_reason_against_a_comparison(comparer, served, monkeypatch):
    def fail(*_):
        raise AwayError("the MLflow store has not answered")

    monkeypatch.setattr(ChampionComparer, "_fetch", lambda *_: served.folder)
    monkeypatch.setattr(seen, "seen", fail)
    champion = version(comparer, "0" * 64)
    champion.tags["cxr.split_run_id"] = "there"
    with pytest.raises(AwayError):
        comparer.compare(champion)


def test_an_image_that_cannot_be_read_is_not_told_as_a_fault_of_the_champion(comparer, served, monkeypatch):
    def damaged(*_):
        raise ImageError("the image cannot be decoded")

    monkeypatch.setattr(ChampionComparer, "_fetch", lambda *_: served.folder)
    monkeypatch.setattr(ImageReader, "read", damaged)
    monkeypatch.setattr(ImageReader, "raster", damaged)
    with pytest.raises(ImageError):
        comparer.compare(version(comparer))


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
        assert comparison.left_out is None
