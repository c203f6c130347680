"""`evaluate` on a split other than the bundle's own, and on one without validation images: scored, never registered."""

import json
import shutil
from functools import cache

import pytest

from cxr.datasets.manifest import Manifest
from cxr.evaluation.results import EvaluationReport
from tests.steps.conftest import PLAIN, parameters


@pytest.fixture(scope="module")
def split_anew(workflow):
    """Function that splits the phantoms of the workflow anew; its runs, and all that follow, are removed at the end."""
    known = {run.info.run_id for run in workflow.client.search_runs([workflow.experiment_id])}

    @cache
    def split(val_size: float):
        done = workflow.project("prepare_split", "data.sample_images=60", f"data.val_size={val_size}")
        assert done.returncode == 0, done.stderr
        return workflow.runs("prepare_split")[0]

    yield split
    for run in workflow.client.search_runs([workflow.experiment_id]):
        if run.info.run_id not in known:
            workflow.client.delete_run(run.info.run_id)


@pytest.fixture
def without_val(split_anew):
    return split_anew(0)


@pytest.fixture
def evaluated(workflow, in_process, capfd):
    """Function that evaluates on a split; returns what was logged and the run, report and page."""

    def run(split, **given: object):
        before = workflow.client.search_model_versions("")
        code = in_process("evaluate", split_run_id=split.info.run_id, **parameters(*PLAIN), **given)
        assert code == 0 and workflow.client.search_model_versions("") == before
        logged, run = capfd.readouterr().err, workflow.runs("evaluate")[0]
        text = workflow.artifact(run, "evaluation/report.json").read_text()
        page = workflow.artifact(run, "evaluation/report.html").read_text()
        return logged, run, EvaluationReport.model_validate_json(text), page

    return run


@pytest.fixture
def bundle_of_that_split(workflow, without_val, tmp_path):
    """A bundle that says it was trained on the split without validation images."""
    folder = shutil.copytree(workflow.artifact(workflow.first("train"), "bundle"), tmp_path / "bundle")
    config = json.loads((folder / "config.json").read_text())
    config["facts"]["manifest_digest"] = without_val.data.tags["cxr.manifest_digest"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_bundle_of_another_split_is_scored_and_what_it_has_seen_is_counted(workflow, split_anew, evaluated):
    """Every image of the new validation split was one of training or validation before; the test split is the same."""
    split = split_anew(0.5)
    logged, run, report, page = evaluated(split, run_id=workflow.first("train").info.run_id)
    here = Manifest.load(workflow.artifact(split, "split"))
    val, test = here.split("val").rows, here.split("test").rows
    assert report.seen.images == {"test": 0, "val": len(val)}
    assert report.seen.reasons == {"same pixels": len(val), "near duplicate": 0, "same patient": 0}
    assert report.seen.patients == val["patient"].nunique() == run.data.metrics["seen_patients"] < len(val)
    words = f"0 of {len(test)} test images and {len(val)} of {len(val)} validation images, of {report.seen.patients} "
    assert words in run.data.tags["cxr.another_split"] and words in page
    assert words in workflow.artifact(run, "evaluation/model_card.md").read_text()
    assert f"the bundle is of another split, so nothing is registered; {words}" in logged
    assert report.registered is report.gate is report.champion is None and "cxr.model_version" not in run.data.tags


def test_a_bundle_whose_training_is_not_in_the_store_is_scored_all_the_same(workflow, without_val, evaluated, tmp_path):
    folder = shutil.copytree(workflow.artifact(workflow.first("train"), "bundle"), tmp_path / "bundle")
    config = json.loads((folder / "config.json").read_text())
    config["facts"]["run_id"] = "0" * 32
    (folder / "config.json").write_text(json.dumps(config))
    logged, _, report, _ = evaluated(without_val, bundle=folder)
    assert f"cannot be found out: its training, run {'0' * 32}, is not in the store" in logged
    assert report.seen.images is None and report.registered is None


def test_without_validation_images_the_test_images_alone_are_scored(without_val, evaluated, bundle_of_that_split):
    logged, run, report, page = evaluated(without_val, bundle=bundle_of_that_split, registry__register="false")
    assert logged.count("the split has no validation images: scores of the test images alone") == 1
    assert report.validation is None and report.seen is None and report.test.images > 0
    assert report.bands is None  # nothing to choose them on
    assert not [name for name in run.data.metrics if name.startswith("val_") and name not in ("val_metric", "val_loss")]
    assert "chosen on the validation images of its training" in page


def test_on_another_split_no_thresholds_are_chosen_anew(workflow, split_anew, refused):
    given = {"split_run_id": split_anew(0.5).info.run_id, "run_id": workflow.first("train").info.run_id}
    assert "images of another split than the bundle's own; set evaluate.views=1" in refused(
        "evaluate", **given, evaluate__views=2
    )


@pytest.mark.parametrize(
    "step, more, words",
    [
        (
            "evaluate",
            {},
            "no validation images, on which the registry gate judges; run prepare_split with data.val_size",
        ),
        ("evaluate", {"registry__register": "false", "evaluate__views": 2}, "validation images; set evaluate.views=1"),
        ("train", {}, "has no validation images, on which training chooses its epoch; run prepare_split with"),
    ],
    ids=["registering", "more views", "training"],
)
def test_what_needs_validation_images_says_so(refused, without_val, bundle_of_that_split, step, more, words):
    given = {"bundle": bundle_of_that_split} if step == "evaluate" else {}
    assert words in refused(step, split_run_id=without_val.info.run_id, **given, **more)
