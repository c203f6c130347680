"""A search as a user runs it, on a few phantoms: its results, how it goes on, and what it refuses."""

import os
import signal
import sys

import mlflow
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.helpers import wait_for
from tests.steps.conftest import PLAIN, SMALL
from tests.steps.test_workflow import processes_of

SPACE = "search.space={finetune.optimizer.lr: {low: 1e-5, high: 1e-3, log: true}}"


@pytest.fixture(scope="module")
def searched(new_workflow):
    """A workspace with a finished search of two trials, and the output of that search."""
    workflow = new_workflow(run=False)
    done = workflow.project("search", *SMALL, SPACE, "trials=2", drawn=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return workflow, done.stdout + done.stderr


def all_trials(workflow) -> list[mlflow.entities.Run]:
    query = "tags.`cxr.step` = 'trial'"
    return list(workflow.client.search_runs([workflow.experiment_id], query, order_by=["attributes.start_time ASC"]))


def test_trials_are_nested_runs_on_one_split(searched):
    workflow, _ = searched
    search, trials = workflow.first("search"), all_trials(workflow)[:2]
    assert [run.info.run_name for run in trials] == ["trial 1", "trial 2"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {search.info.run_id}
    finetuned = workflow.runs("finetune")[-2:]
    parents = [run.data.tags["mlflow.parentRunId"] for run in finetuned]
    assert set(parents) == {run.info.run_id for run in trials}
    assert {run.data.tags["cxr.split_run_id"] for run in finetuned} == {workflow.first("prepare_split").info.run_id}
    assert [run.data.tags["cxr.trial"] for run in finetuned] == parents
    assert "cxr.trial" not in workflow.first("train").data.tags  # of the search itself
    assert len(workflow.runs("train")) == 1
    scores = {run.data.tags["mlflow.parentRunId"]: run.data.metrics["best_val_metric"] for run in finetuned}
    for trial in trials:
        assert trial.data.metrics["score"] == scores[trial.info.run_id]
        assert 1e-5 <= float(trial.data.params["finetune.optimizer.lr"]) <= 1e-3


def test_the_best_settings_go_on_to_main_which_trains_nothing_again(searched):
    workflow, output = searched
    search = workflow.first("search")
    best = max(all_trials(workflow)[:2], key=lambda run: run.data.metrics["score"])
    file = workflow.artifact(search, "search/best.yaml")
    values = yaml.safe_load(file.read_text())
    assert values["finetune"]["optimizer"]["lr"] == pytest.approx(float(best.data.params["finetune.optimizer.lr"]))
    assert values["data"]["sample_images"] == 60
    assert "optimistic" in file.read_text().splitlines()[2] and "optimistic" in output
    assert not workflow.runs("evaluate")  # a search never reads the test split
    done = workflow.project("main", f"params={file}", *PLAIN, "registry.register=false")
    assert done.returncode == 0, done.stderr
    assert f"finetune: reused run {workflow.runs('finetune')[0].info.run_id}" in done.stderr or (
        f"finetune: reused run {workflow.runs('finetune')[1].info.run_id}" in done.stderr
    )
    evaluated = workflow.runs("evaluate")[0].data.tags["cxr.finetune_run_id"]
    tags = workflow.client.get_run(evaluated).data.tags
    assert tags["mlflow.parentRunId"] == best.info.run_id
    assert "cxr.trial" not in tags  # what main has taken over is its own


def test_a_table_and_a_picture_show_the_trials(searched):
    workflow, output = searched
    search = workflow.first("search")
    table = pd.read_csv(workflow.artifact(search, "search/trials.csv"))
    assert list(table["state"]) == ["complete"] * 2
    assert table["score"].max() == pytest.approx(search.data.metrics["best_score"])
    with Image.open(workflow.artifact(search, "search/search.png")) as picture:
        assert min(picture.size) > 300
    assert "Study 'search': 2 complete" in output
    assert workflow.artifact(search, "summary.txt").read_text() in output


def test_a_search_goes_on_and_another_space_is_refused(searched):
    workflow, _ = searched
    before = len(all_trials(workflow))
    again = workflow.project("search", *SMALL, SPACE, f"trials={before + 1}")
    assert again.returncode == 0, again.stderr
    assert f"going on with the study 'search', which has {before} trials" in again.stderr
    after = all_trials(workflow)
    assert len(after) == before + 1
    assert len({run.data.params["finetune.optimizer.lr"] for run in after}) == before + 1
    other = "search.space={finetune.optimizer.lr: {low: 1e-5, high: 1e-2, log: true}}"
    for settings, what in (((other,), "space"), ((SPACE, "finetune.ema=0.5"), "settings")):
        refused = workflow.project("search", *SMALL, *settings, "trials=9")
        assert refused.returncode == 1
        assert f"has {before + 1} trials with another {what}, so that scores do not compare" in refused.stderr
    assert len(all_trials(workflow)) == before + 1


@pytest.mark.long
def test_a_killed_search_goes_on_with_its_trials(new_workflow):
    workflow = new_workflow(run=False)
    settings = (*SMALL, SPACE, "trials=2", "finetune.unfreeze=0", "finetune.epochs=150", "finetune.patience=150")
    driver = workflow.start("search", *settings)
    try:
        wait_for(lambda: any("val_metric" in run.data.metrics for run in workflow.runs("finetune", "RUNNING")), 240)
        steps = [process for process in processes_of(workflow.folder) if process.pid != driver.pid]
    finally:
        # The search itself; what it has launched has to end by itself.
        for process in steps:
            if "steps.search" in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait(60)
    wait_for(lambda: not processes_of(workflow.folder), 60)
    done = workflow.project("search", *settings, "trials=1", "search.prune_after=null", timeout=600)
    assert done.returncode == 0, done.stderr
    assert "left unfinished: 1 trial; counted as failed" in done.stderr
    states = [run.data.tags["cxr.trial.state"] for run in all_trials(workflow)]
    assert states == ["interrupted", "complete"]
    every = workflow.client.search_runs([workflow.experiment_id])
    assert not [run for run in every if run.info.status == "RUNNING"]


def test_a_search_whose_trials_all_fail_fails_in_one_line(searched):
    workflow, _ = searched
    space = "search.space={finetune.optimizer.lr: {low: 1.0e+30, high: 1.0e+31}}"
    done = workflow.project("search", *SMALL, space, "trials=1", "study=far")
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if "ERROR" in line and "search:" in line]
    assert "the only trial of the study 'far' failed: step finetune failed: the " in line
    assert "not finite" in line or "loss is" in line


@pytest.mark.parametrize(
    "given, words",
    [
        ({"trials": 0}, "setting search.trials = 0: it should be greater than or equal to 1"),
        ({"workers": "many"}, "setting search.workers = 'many'"),
        ({"search__space": "{finetune.epoch: {low: 1, high: 3}}"}, "search.space: unknown setting 'finetune.epoch'"),
        ({"search__space": "{finetune.epochs: {low: 3, high: 1}}"}, "low 3 is not below high 1"),
        ({"search__space": "{finetune.ema: {low: 0.0, high: 2.0}}"}, "search.space: setting finetune.ema = 2.0"),
        ({"search__space": "{finetune.optimizer.speed: {low: 1, high: 2}}"}, "takes no argument 'speed'"),
    ],
)
def test_bad_parameters_are_refused_before_any_step(refused, given, words):
    assert words in refused("search", **given)


def test_without_optuna_one_line_says_how_to_install_it(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "search needs Optuna: pip install -r requirements-search.txt" in refused("search")
