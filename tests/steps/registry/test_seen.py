"""What a model of another split has seen is found by the fingerprints that both splits keep."""

import logging

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

from cxr.datasets import inspection, overlap
from cxr.datasets.layouts import ListedImage
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.errors import CxrError
from steps.registry import seen
from steps.runtime.cli import Step
from steps.runtime.context import Context
from tests.helpers import CLASSES, png, settings_with


@pytest.fixture
def context(experiment_id, tmp_path) -> Context:
    client = mlflow.MlflowClient()
    run_id = client.create_run(experiment_id).info.run_id
    context = Context(
        step=Step(name="evaluate", about=""), flags={}, overrides={}, run_id=run_id, experiment_id=experiment_id,
        client=client, folder=tmp_path / "scratch", log=logging.getLogger())  # fmt: skip
    context.settings = settings_with({})
    return context


@pytest.fixture
def split_run(context, tmp_path):
    """Function that logs a split of pictures, given by number, split and patient; returns the ID of its run."""

    def log(root: str, images: list[tuple[int, str, str]], with_fingerprints: bool = True, **source: bool) -> str:
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        listing = []
        for number, _, patient in images:
            grey = np.random.default_rng(number).integers(0, 256, (24, 24), dtype=np.uint8)
            (folder / f"{number}.png").write_bytes(png(grey))
            listing.append(ListedImage(f"{number}.png", "normal", patient, None))
        table = inspection.survey(folder, listing, workers=1)[0].assign(split=[split for _, split, _ in images])
        manifest = Manifest(table[COLUMNS], folder, CLASSES, {"kind": "folder", "address": str(folder), **source})
        manifest.save(tmp_path / "split")
        (tmp_path / "split" / overlap.FILE).unlink(missing_ok=True)
        if with_fingerprints:
            overlap.save(overlap.fingerprints(table), tmp_path / "split")
        tags = {"cxr.step": "prepare_split", "cxr.manifest_digest": manifest.digest}
        run_id = context.client.create_run(context.experiment_id, tags=tags).info.run_id
        context.client.log_artifacts(run_id, str(tmp_path / "split"), "split")
        context.client.set_terminated(run_id)
        return run_id

    return log


OLD = [(1, "train", "1"), (2, "train", "2"), (3, "val", "3"), (4, "test", "4")]


def test_training_and_validation_images_and_their_patients_are_seen_and_test_images_are_not(context, split_run):
    """The data has grown by four images, in another folder; children 1 and 4 came again."""
    old = split_run("old", OLD)
    grown = [*((n, "val", patient) for n, _, patient in OLD), (5, "val", "1"), (6, "test", "4"), (7, "test", "7")]
    table = seen.seen(context, split_run("grown", grown), old)
    assert table["path"].tolist() == ["1.png", "2.png", "3.png", "5.png"]
    assert table["reason"].tolist() == ["same pixels"] * 3 + ["same patient"]
    assert table["patient"].tolist() == ["all/1", "all/2", "all/3", "all/1"] and set(table["split"]) == {"val"}


def test_children_of_another_hospital_are_not_taken_for_those_of_the_same_number(context, split_run):
    old, other = split_run("old", OLD), split_run("other", [(8, "val", "1"), (9, "val", "2")])
    assert len(seen.seen(context, other, old)) == 0


def test_patients_of_one_source_are_named_alike(context, split_run):
    """A folder whose images are replaced every month."""
    old, later = split_run("one", OLD), split_run("one", [(8, "val", "1"), (9, "val", "9")])
    assert seen.seen(context, later, old)["reason"].tolist() == ["same patient"]


def test_phantoms_of_another_seed_are_other_patients(context, split_run):
    drawn = split_run("sample", OLD, synthetic=True), split_run("sample", [(8, "val", "1")], synthetic=True)
    assert len(seen.seen(context, *drawn[::-1])) == 0


def test_a_split_without_fingerprints_takes_those_of_the_same_split_made_again(context, split_run):
    old, here = split_run("old", OLD, with_fingerprints=False), split_run("here", [(1, "val", "1")])
    with pytest.raises(
        CxrError, match=f"the split of run {old} is older than fingerprints are; run prepare_split again"
    ):
        seen.seen(context, here, old)
    again = split_run("old", OLD)
    assert again != old and len(seen.seen(context, here, old)) == 1


def test_a_split_that_is_gone_or_damaged_is_one_line(context, split_run, monkeypatch):
    here = split_run("here", OLD)
    with pytest.raises(CxrError, match="its split, run 0000, is not in the store"):
        seen.seen(context, here, "0000")
    monkeypatch.setattr(overlap, "load", lambda folder: pd.DataFrame({"path": ["other.png"]}))
    with pytest.raises(CxrError, match="its fingerprints are those of other images; run prepare_split again"):
        seen.seen(context, here, here)


def test_a_store_that_refuses_an_answer_is_not_told_as_a_run_that_is_gone(context, monkeypatch):
    def fail(*_):
        raise MlflowException("refused", PERMISSION_DENIED)

    monkeypatch.setattr(context.client, "get_run", fail)
    with pytest.raises(MlflowException, match="refused"):
        seen.seen(context, "a", "b")
