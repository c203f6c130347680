"""What an evaluation has logged by the time it registers a version."""

import logging
from types import SimpleNamespace

import pytest

from cxr.evaluation.predictor import Predictor
from steps.registry import registry
from steps.work import evaluate
from steps.work.evaluate import Subject
from tests import helpers


class Stopped(Exception):
    """Ends an evaluation."""


def test_the_predictions_are_logged_before_a_version_names_the_run(served, monkeypatch, tmp_path):
    """The comparison with the champion takes minutes, and may be interrupted."""
    logged, bundle, manifest = [], served.bundle, served.manifest
    settings = helpers.settings_with({
        "evaluate.robustness": "false", "evaluate.map_images": 0, "evaluate.gallery": 0,
        "cache.dir": tmp_path / "cache"})  # fmt: skip
    context = SimpleNamespace(
        settings=settings, folder=tmp_path, run_id="run", log=logging.getLogger("test"),
        put_json=lambda values, path: logged.append(path), put_text=lambda text, path: logged.append(path),
        metrics=lambda values, step=0: None, tag=lambda *_: None)  # fmt: skip
    datasets = helpers.datasets(bundle, manifest)
    subject = Subject(tmp_path, bundle, Predictor(bundle), manifest, datasets, "split", "digest", None, None)

    def register(*_, **__):
        raise Stopped

    monkeypatch.setattr(evaluate, "_subject", lambda _: subject)
    monkeypatch.setattr(evaluate.provenance, "version_tags", lambda *_: {})
    monkeypatch.setattr(registry, "register", register)
    with pytest.raises(Stopped):
        evaluate.run(context)
    assert "evaluation/predictions.json" in logged
