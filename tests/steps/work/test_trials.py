"""Trials are kept in the MLflow store alone, and read from it as they were left."""

import logging
import time

import mlflow
import pytest

from steps import search
from steps.runtime import process
from steps.runtime.context import Context
from steps.work import trials
from tests.helpers import settings_with

SHARED = {"space": "a", "settings": "b", "split": "c"}


@pytest.fixture
def context(experiment_id, tmp_path) -> Context:
    client = mlflow.MlflowClient()
    run = client.create_run(experiment_id, tags={"cxr.step": "search"})
    more = {
        "experiment_id": experiment_id,
        "client": client,
        "folder": tmp_path,
        "log": logging.getLogger("steps.search"),
    }
    return Context(step=search.STEP, flags={}, overrides={}, run_id=run.info.run_id, **more)


def begin(context, number: int = 1, study: str = "s", **values: object) -> str:
    context.settings = settings_with({"search.study": study})
    return trials.begin(context, number, values or {"finetune.optimizer.lr": 1e-05}, SHARED)


def test_a_trial_is_read_as_it_was_left(context):
    key = begin(context, 1, **{"finetune.optimizer.lr": 1e-05, "finetune.unfreeze": 3, "train.class_weights": None})
    assert [trial.state for trial in trials.known(context, "s")] == ["running"]
    for epoch, score in ((1, 0.5), (2, 0.7)):
        trials.log_epoch(context, key, epoch, score)
    trials.end(context, key, "complete", 0.7)
    [trial] = trials.known(context, "s")
    assert trial.values == {"finetune.optimizer.lr": 1e-05, "finetune.unfreeze": 3, "train.class_weights": None}
    assert (trial.key, trial.number, trial.state, trial.score) == (key, 1, "complete", 0.7)
    assert trial.epochs == {1: 0.5, 2: 0.7}
    run = context.client.get_run(key)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == context.run_id
    assert run.data.params["finetune.unfreeze"] == "3"
    assert trials.known(context, "other") == []


def test_trials_come_in_the_order_in_which_they_began(context):
    keys = []
    for number in (1, 2, 3):
        keys.append(begin(context, number))
        time.sleep(0.005)  # MLflow keeps milliseconds
    trials.end(context, keys[1], "pruned")
    trials.end(context, keys[0], "failed", reason="no such file")
    before = trials.known(context, "s")
    assert [(trial.key, trial.state) for trial in before] == list(
        zip(keys, ("failed", "pruned", "running"), strict=True)
    )
    assert [context.client.get_run(key).info.status for key in keys] == ["FAILED", "KILLED", "RUNNING"]
    assert context.client.get_run(keys[0]).data.tags["cxr.error"] == "no such file"
    trials.end(context, keys[2], "complete", 0.1)
    after = trials.known(context, "s", before)
    assert after[0] is before[0]
    assert after[2].state == "complete"


def test_what_differs_from_earlier_trials_is_named(context):
    assert trials.different(context, "s", SHARED) == (0, [])
    begin(context)
    assert trials.different(context, "s", SHARED) == (1, [])
    assert trials.different(context, "s", {**SHARED, "space": "x", "split": "y"}) == (1, ["space", "split"])


def test_trials_whose_search_is_gone_are_given_up(context):
    """Those of this machine have been marked as KILLED, those of another are not followed any more."""
    alive, stale, killed, complete = (begin(context, number) for number in range(1, 5))
    context.client.set_tag(stale, "cxr.trial.seen", str(time.time() - trials.STALE_S - 1))
    context.client.set_terminated(killed, "KILLED")
    trials.end(context, complete, "complete", 0.5)
    assert trials.end_lost(context, "s") == 2
    states = {trial.key: trial.state for trial in trials.known(context, "s")}
    assert states == {alive: "running", stale: "interrupted", killed: "interrupted", complete: "complete"}
    trials.seen(context, alive)
    assert trials.end_lost(context, "s") == 0


def test_the_training_of_a_trial_is_found_while_it_is_at_work(context, experiment_id):
    key = begin(context)
    assert trials.training(context, key, "finetune") is None
    tags = {"cxr.step": "finetune", "cxr.process": process.identity(), "mlflow.parentRunId": key}
    run = context.client.create_run(experiment_id, tags=tags)
    assert trials.training(context, key, "finetune") == run.info.run_id
    for step, value in ((0, 0.1), (2, 0.3), (1, 0.2), (2, 0.3), (3, float("nan"))):
        context.client.log_metric(run.info.run_id, "val_metric", value, step=step)
    assert trials.epochs(context.client, run.info.run_id) == {1: 0.2, 2: 0.3}
