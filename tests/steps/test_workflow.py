"""The whole workflow as a user runs it, on a few phantoms: its results, and what it reuses and resumes."""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image

from cxr.datasets import phantom
from cxr.datasets.manifest import Manifest
from tests.helpers import wait_for
from tests.steps.conftest import PLAIN, SMALL

STEPS = ("prepare_split", "train", "finetune", "evaluate")


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes with a workspace in their command line."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(folder) in " ".join(process.info["cmdline"] or [])
    ]


def test_main_leaves_a_champion_that_leads_back_to_every_run(workflow):
    runs = {step: workflow.first(step) for step in STEPS}
    version = workflow.client.get_model_version("cxr-pneumonia", "1")
    for step in STEPS:
        name = step.removeprefix("prepare_")
        assert version.tags[f"cxr.{name}_run_id"] == runs[step].info.run_id
    main = workflow.first("main")
    assert {r.data.tags["mlflow.parentRunId"] for r in runs.values()} == {main.info.run_id}
    assert version.tags["cxr.synthetic"] == "true"


def test_the_summary_names_runs_and_says_that_the_sample_is_synthetic(workflow):
    for words in (
        "SYNTHETIC DATA: drawn phantoms, no patients",
        "macro-F1",
        "cxr-pneumonia version 1: champion: there was none before",
        f"serve it       MLFLOW_TRACKING_URI={workflow.uri} mlflow models serve -m 'models:/cxr-pneumonia@champion'",
        *(workflow.first(step).info.run_id for step in STEPS),
    ):
        assert words in workflow.output
    assert workflow.artifact(workflow.first("main"), "summary.txt").read_text() in workflow.output


def test_every_step_logs_what_the_next_one_needs(workflow):
    split, train, finetune, evaluate = (workflow.first(step) for step in STEPS)
    manifest = Manifest.load(workflow.artifact(split, "split"))
    assert manifest.rows.groupby("patient")["split"].nunique().max() == 1
    assert json.loads(workflow.artifact(split, "split/leaks.json").read_text())["patients_in_two_splits"] == []
    assert split.inputs.dataset_inputs[0].dataset.digest == manifest.digest[:36]
    for run in (train, finetune):
        assert {f.name for f in workflow.artifact(run, "bundle").iterdir()} == {"model.pt", "config.json"}
        assert [f.name for f in workflow.artifact(run, "checkpoint").iterdir()] == ["last.pt"]
        assert {"lr", "train_loss", "val_loss", "val_metric", "images_per_second"} <= set(run.data.metrics)
    assert yaml.safe_load(workflow.artifact(train, "settings.yaml").read_text())["train"]["epochs"] == 2
    predictions = json.loads(workflow.artifact(evaluate, "evaluation/predictions.json").read_text())
    assert [p["path"] for p in predictions] == list(manifest.split("test").rows["path"])
    confusion = json.loads(workflow.artifact(evaluate, "evaluation/confusion.json").read_text())
    assert np.trace(confusion["counts"]) / len(predictions) == pytest.approx(evaluate.data.metrics["test_accuracy"])
    for run, figure in ((split, "split/figures"), (finetune, "figures"), (evaluate, "evaluation/figures")):
        pictures = list(workflow.artifact(run, figure).iterdir())
        assert pictures
        for file in pictures:
            with Image.open(file) as picture:
                assert min(picture.size) > 100, file.name
    for step in STEPS:
        logs = workflow.artifact(workflow.first(step), "logs")
        first = json.loads((logs / "info.log").read_text().splitlines()[0])
        assert {"message", "levelname"} <= set(first) or {"message", "level"} <= set(first)


def test_unchanged_steps_are_reused(workflow):
    def counts():
        versions = workflow.client.search_model_versions("name='cxr-pneumonia'")
        return [*(len(workflow.runs(step)) for step in STEPS), len(versions)]

    before = counts()
    again = workflow.project("main", *SMALL)
    assert again.returncode == 0, again.stderr
    for step in STEPS:
        assert f"{step}: reused run {workflow.first(step).info.run_id}, nothing has changed" in again.stderr
    assert counts() == before
    changed = workflow.project("main", *SMALL, *PLAIN, "train.optimizer.lr=5e-3")
    assert changed.returncode == 0, changed.stderr
    assert "prepare_split: reused" in changed.stderr
    assert "train: running, changed since the last run: settings" in changed.stderr
    assert re.search("finetune: running, changed since the last run: (settings, )?inputs", changed.stderr)
    assert "evaluate: running, " in changed.stderr
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [0, 1, 1, 1, 1]


@pytest.mark.long
def test_an_image_added_to_the_test_part_is_scored_though_the_weights_stay_the_same(new_workflow, tmp_path):
    workflow = new_workflow(run=False)
    phantom.draw(tmp_path, 60, seed=1)
    settings = (*SMALL, *PLAIN, f"data_path={tmp_path}", "registry.register=false")
    images = []
    for name in (None, "person900_virus_1.jpeg"):
        if name is not None:
            (tmp_path / "test/PNEUMONIA" / name).write_bytes(phantom.example("virus", seed=900))
        done = workflow.project("main", *settings)
        assert done.returncode == 0, done.stderr
        newest = workflow.runs("evaluate")[0]
        assert newest.data.tags["cxr.split_run_id"] == workflow.runs("prepare_split")[0].info.run_id
        images.append(len(json.loads(workflow.artifact(newest, "evaluation/predictions.json").read_text())))
    assert images[1] == images[0] + 1
    assert "finetune: running, changed since the last run: inputs" in done.stderr
    for step in ("train", "finetune"):
        assert len({run.data.tags["cxr.output_digest"] for run in workflow.runs(step)}) == 1
    again = workflow.project("main", *settings)
    assert [f"{step}: reused" in again.stderr for step in STEPS] == [True] * len(STEPS), again.stderr


def test_finetune_alone_starts_from_the_newest_train_run_with_its_settings(workflow):
    train = workflow.runs("train")[0]
    done = workflow.project("finetune", "lr=1e-5")
    assert done.returncode == 0, done.stderr
    run = workflow.runs("finetune")[0]
    assert run.data.tags["cxr.train_run_id"] == train.info.run_id
    settings = yaml.safe_load(workflow.artifact(run, "settings.yaml").read_text())
    assert settings["finetune"]["optimizer"]["lr"] == 1e-5
    assert settings["finetune"]["batch_size"] == 32
    assert settings["model"]["input_size"] == 64
    assert workflow.artifact(run, "bundle/model.pt").is_file()


def test_evaluate_takes_a_bundle_from_a_folder_and_writes_to_a_folder(workflow, tmp_path):
    train = workflow.first("train")
    # Without it, evaluate takes the newest split, and the other tests that share this store make splits as well.
    split = train.data.tags["cxr.split_run_id"]
    given = (f"bundle={workflow.artifact(train, 'bundle')}", f"split_run_id={split}", f"out={tmp_path / 'out'}")
    done = workflow.project("evaluate", *given, *PLAIN, "registry.register=false")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["macro_f1"]["value"] == pytest.approx(workflow.runs("evaluate")[0].data.metrics["test_macro_f1"])
    assert {"report.html", "report.json", "model_card.md", "predictions.json"} <= {
        f.name for f in (tmp_path / "out").iterdir()
    }
    assert (tmp_path / "out/figures/confusion.png").is_file()


def interrupt(workflow, settings: tuple[str, ...], signal_: signal.Signals) -> str:
    """Start `main` and send it a signal during its training; returns the ID of that training's run."""
    driver = workflow.start("main", *settings)
    known = sum(map(len, epochs_seen(workflow)))
    try:
        wait_for(lambda: workflow.runs("train", "RUNNING") and sum(map(len, epochs_seen(workflow))) > known, 300)
        running = workflow.runs("train", "RUNNING")[0].info.run_id
    finally:
        os.kill(driver.pid, signal_)
        driver.wait(60)
    wait_for(lambda: not processes_of(workflow.folder), 120)
    return running


def epochs_seen(workflow) -> list[list[int]]:
    """Epochs whose loss is in the store, for each training."""
    trainings = [run for status in ("RUNNING", "KILLED", "FINISHED") for run in workflow.runs("train", status)]
    return [
        [m.step for m in workflow.client.get_metric_history(run.info.run_id, "val_loss")]
        for run in trainings
        if "val_loss" in run.data.metrics
    ]


EPOCHS = 150


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param((signal.SIGINT, signal.SIGTERM), id="INT then TERM"),
        pytest.param((signal.SIGKILL,), id="KILL", marks=pytest.mark.long),
    ],
)
def test_an_interrupted_main_leaves_no_process_and_resumes(new_workflow, signals):
    workflow = new_workflow(run=False)
    # Many epochs: they take a hundredth of a second each, and the signal has to come in between.
    settings = (*SMALL, f"train.epochs={EPOCHS}", f"train.patience={EPOCHS}", *PLAIN, "registry.register=false")
    trainings = set()
    for signal_ in signals:
        trainings.add(interrupt(workflow, settings, signal_))
        if signal_ != signal.SIGKILL:
            assert not any(workflow.runs(step, "RUNNING") for step in ("main", "train"))
        assert all(len(epochs) <= EPOCHS for epochs in epochs_seen(workflow))
    [training] = trainings
    done = workflow.project("main", *settings)
    assert done.returncode == 0, done.stderr
    assert "prepare_split: reused" in done.stderr
    assert f"train: resuming, run {training} was interrupted" in done.stderr
    assert [run.info.run_id for run in workflow.runs("train")] == [training]
    [epochs] = epochs_seen(workflow)
    assert sorted(set(epochs)) == list(range(EPOCHS + 1))  # 0 is the start
    every = workflow.client.search_runs([workflow.experiment_id])
    assert not [run for run in every if run.info.status == "RUNNING"]


def test_a_failed_step_fails_main_with_its_error_message(new_workflow, tmp_path):
    workflow = new_workflow(run=False)
    (tmp_path / "NORMAL").mkdir()
    done = workflow.project("main", f"data_path={tmp_path}")
    assert done.returncode == 1
    assert "step prepare_split failed: " in done.stderr
    assert "holds no X-rays in a known layout" in done.stderr
    assert "Traceback" not in done.stderr.split("mlflow.projects")[0]
    assert {r.info.status for r in workflow.client.search_runs([workflow.experiment_id])} == {"FAILED"}
