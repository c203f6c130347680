"""The loop of a search, with steps that only look like trainings."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import mlflow
import psutil
import pytest

from cxr.errors import CxrError
from cxr.search.study import Study
from steps import search
from steps.runtime import process
from steps.runtime.context import Context
from steps.work import launching, searching, trial_work, trials
from steps.work.searching import Search, changes
from tests.helpers import settings_with

SHARED = {"space": "a"}


@dataclass
class Trainings:
    """Stands for the steps: each call is a run with a process, as MLflow makes them.

    `curve` gives the metric by epoch of the n-th training, from 0; one without a last value hangs until it is stopped.
    """

    curve: Callable[[int], list[float | None]]
    calls: list[tuple[str, dict, dict]] = field(default_factory=list)
    processes: list[subprocess.Popen] = field(default_factory=list)

    def step(self, context, name, done, may_reuse, overrides):
        number = len(self.calls)
        self.calls.append((name, dict(done), overrides))
        parent = mlflow.active_run().info.run_id
        client = context.client
        run = client.create_run(context.experiment_id, tags={"cxr.step": name, "mlflow.parentRunId": parent})
        run_id = run.info.run_id
        work = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
        self.processes.append(work)
        started = psutil.Process(work.pid).create_time()
        host = process.identity().rsplit(":", 2)[0]
        client.set_tag(run_id, "cxr.process", f"{host}:{work.pid}:{started:.2f}")
        values = self.curve(number)
        for epoch, value in enumerate(values, start=1):
            if value is not None:
                client.log_metric(run_id, "val_metric", value, step=epoch)
        if values[-1] is not None:
            work.kill()
            client.log_metric(run_id, "best_val_metric", max(values))
        work.wait(60)
        if values[-1] is None:
            client.set_terminated(run_id, "KILLED")
            raise CxrError(f"step {name} failed: it ended without a message")
        client.set_terminated(run_id, "FINISHED")
        return run_id

    def stop(self):
        for work in self.processes:
            work.kill()
            work.wait()


def context_of(experiment_id, folder, **given: object) -> Context:
    """The context of a search in a new run, with these settings of `search`."""
    client = mlflow.MlflowClient()
    run = client.create_run(experiment_id, tags={"cxr.step": "search"})
    more = {"experiment_id": experiment_id, "client": client, "folder": folder}
    log = logging.getLogger("steps.search")
    context = Context(step=search.STEP, flags={}, overrides={}, run_id=run.info.run_id, log=log, **more)
    context.settings = settings_with({f"search.{name}": value for name, value in given.items()})
    return context


@pytest.fixture
def make(experiment_id, tmp_path, monkeypatch):
    """Function that makes a search whose trainings have these curves."""
    monkeypatch.setattr(searching, "POLL_S", 0.05)
    made: list[Trainings] = []

    def make(curve, **given: object) -> tuple[Search, Trainings]:
        context = context_of(experiment_id, tmp_path, **given)
        trainings = Trainings(curve)
        made.append(trainings)
        monkeypatch.setattr(launching, "step", trainings.step)
        study = Study(context.settings.search, maximise=True, seed=0)
        return Search(context, study, {"prepare_split": "split", "train": "trained"}, SHARED), trainings

    yield make
    for trainings in made:
        trainings.stop()


def known(search: Search) -> list:
    return trials.known(search.context, search.settings.study)


def test_trials_are_nested_runs_with_their_steps_below_them(make):
    search, trainings = make(lambda number: [0.5, 0.5 + number / 10], trials=4, workers=2)
    search.run()
    found = known(search)
    assert [trial.state for trial in found] == ["complete"] * 4
    assert sorted(trial.score for trial in found) == [0.5, 0.6, 0.7, 0.8]
    assert [trial.number for trial in found] == [1, 2, 3, 4]
    assert all(trial.epochs == {1: 0.5, 2: trial.score} for trial in found)
    client = search.context.client
    assert {client.get_run(t.key).data.tags["mlflow.parentRunId"] for t in found} == {search.context.run_id}
    steps = client.search_runs([search.context.experiment_id], "tags.`cxr.step` = 'finetune'")
    assert {run.data.tags["mlflow.parentRunId"] for run in steps} == {trial.key for trial in found}
    for name, done, overrides in trainings.calls:
        assert name == "finetune"  # the space has no settings of train, which all share
        assert done == {"prepare_split": "split", "train": "trained"}
        assert set(overrides) == set(search.settings.space)
        assert float(overrides["finetune.optimizer.lr"]) in {t.values["finetune.optimizer.lr"] for t in found}


def test_settings_of_train_make_every_trial_train_anew(make):
    space = "{train.optimizer.lr: {low: 1e-4, high: 1e-2}, model.input_size: {choices: [64, 96]}}"
    search, trainings = make(lambda number: [0.5], trials=1, **{"space": space})
    assert changes(list(search.settings.space)) == "train"
    search.done = {"prepare_split": "split"}
    search.run()
    [(train, _, of_train), (finetune, done, of_finetune)] = trainings.calls
    assert (train, finetune) == ("train", "finetune")
    assert set(of_train) == {"train.optimizer.lr", "model.input_size"} and of_finetune == {}
    assert list(done) == ["prepare_split", "train"]


def test_a_trial_that_falls_behind_is_stopped(make):
    good, bad = [0.8, 0.9], [0.1, 0.2, None]
    search, trainings = make(lambda number: bad if number == 2 else good, trials=4, startup_trials=2, prune_after=2)
    started = time.monotonic()
    search.run()
    assert time.monotonic() - started < 60
    assert [trial.state for trial in known(search)] == ["complete", "complete", "pruned", "complete"]
    pruned = known(search)[2]
    assert pruned.score is None and pruned.epochs == {1: 0.1, 2: 0.2}
    assert trainings.processes[2].returncode < 0
    assert search.context.client.get_run(pruned.key).info.status == "KILLED"


def test_a_study_goes_on_where_it_ended(make):
    search, _ = make(lambda number: [0.5], trials=2)
    search.run()
    again, trainings = make(lambda number: [0.6], trials=3)
    again.run()
    assert len(trainings.calls) == 1
    assert [trial.score for trial in known(again)] == [0.5, 0.5, 0.6]
    assert [trial.state.name for trial in again.study._study.trials] == ["COMPLETE"] * 3
    enough, trainings = make(lambda number: [0.7], trials=3)
    enough.run()
    assert not trainings.calls


def test_interrupted_trials_are_made_up_for_and_failed_ones_are_not(make):
    search, trainings = make(lambda number: [0.5], trials=3)
    values = {"finetune.optimizer.lr": 1e-4, "finetune.unfreeze": 2}
    for number, state in enumerate(("interrupted", "failed"), start=1):
        key = trials.begin(search.context, number, values, SHARED)
        trials.end(search.context, key, state)
    search.run()
    assert len(trainings.calls) == 2
    assert [trial.number for trial in known(search)] == [1, 2, 3, 4]


def test_no_trial_begins_after_the_hours_are_over(make):
    def curve(number):
        search.started -= 3601
        return [0.5]

    search, _ = make(curve, trials=9, hours=1)
    search.run()
    assert len(known(search)) == 1


def test_a_search_whose_trials_all_fail_ends_soon(make, monkeypatch):
    search, _ = make(lambda number: [0.5], trials=30)

    def fails(*_):
        raise CxrError("step finetune failed: the loss is not finite in epoch 1")

    monkeypatch.setattr(launching, "step", fails)
    with pytest.raises(CxrError) as error:
        search.run()
    line = "all 5 trials of the study 'search' failed; the last one: step finetune failed: the loss is not finite"
    assert str(error.value).startswith(line)
    assert [trial.state for trial in known(search)] == ["failed"] * 5


@pytest.mark.parametrize("score", [float("inf"), float("nan")])
def test_a_trial_without_a_finite_score_fails(make, score):
    search, _ = make(lambda number: [score if number else 0.5], trials=2)
    search.run()
    assert [trial.state for trial in known(search)] == ["complete", "failed"]


def test_an_interrupted_search_leaves_no_step_at_work(make, monkeypatch):
    search, trainings = make(lambda number: [0.5, None], trials=4, workers=2)
    monkeypatch.setattr(process, "stop_children", lambda: [work.terminate() for work in trainings.processes])

    def interrupt(*_):
        if len(trainings.processes) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(trial_work.TrialWork, "follow", interrupt)
    with pytest.raises(KeyboardInterrupt):
        search.run()
    assert all(work.poll() is not None for work in trainings.processes)
    assert [trial.state for trial in known(search)] == ["interrupted"] * 2
    assert {search.context.client.get_run(trial.key).info.status for trial in known(search)} == {"KILLED"}
