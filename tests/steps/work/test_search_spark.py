"""Trials as the workers of a Spark cluster run them, in this process, with steps that only look like trainings."""

import optuna
import pytest
from mlflow.optuna.storage import MlflowStorage

from steps.runtime.context import Context
from steps.work import launching, search_spark, trial_work, trials
from tests.steps.work.test_searching import SHARED, Trainings, context_of


@pytest.fixture
def optimise(experiment_id, tmp_path, monkeypatch):
    """Function that runs trials whose trainings have these curves; returns their study and the search's context."""
    monkeypatch.setattr(trial_work, "POLL_S", 0.05)
    made: list[Trainings] = []

    def optimise(curve, number: int) -> tuple[optuna.Study, Context]:
        context = context_of(experiment_id, tmp_path, engine="spark")
        made.append(Trainings(curve))
        monkeypatch.setattr(launching, "step", made[-1].step)
        more = {
            "study_name": "study search",
            "storage": MlflowStorage(experiment_id, batch_flush_interval=0.1),
            "pruner": optuna.pruners.MedianPruner(2, n_warmup_steps=2),
        }
        begun = more["storage"].get_study_id_by_name_if_exists("study search")  # it makes a second one of that name
        study = optuna.load_study(**more) if begun else optuna.create_study(direction="maximize", **more)
        done = {"prepare_split": "split", "train": "trained"}
        study.optimize(lambda trial: search_spark._tried(trial, context, done, SHARED), number, catch=(RuntimeError,))
        return study, context

    yield optimise
    for trainings in made:
        trainings.stop()


def test_optuna_and_the_search_know_the_same_of_every_trial(optimise):
    curves = [[0.7, 0.9], [0.8, 0.8], [0.1, 0.2, None], [float("nan")]]
    study, context = optimise(lambda number: curves[number], 4)
    found = trials.known(context, "search")
    assert [trial.state for trial in found] == ["complete", "complete", "pruned", "failed"]
    assert [trial.score for trial in found] == [0.9, 0.8, None, None]
    assert [trial.number for trial in found] == [1, 2, 3, 4]
    assert found[2].epochs == {1: 0.1, 2: 0.2}
    theirs = [study._storage.get_trial(trial.key) for trial in found]
    assert [trial.state.name for trial in theirs] == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL"]
    assert [trial.values for trial in theirs[:2]] == [[0.9], [0.8]]
    for trial, their in zip(found, theirs, strict=True):
        assert trial.values == pytest.approx(their.params)
        assert their.intermediate_values == trial.epochs
    statuses = [context.client.get_run(trial.key).info.status for trial in found]
    assert statuses == ["FINISHED", "FINISHED", "KILLED", "FAILED"]


def test_a_study_goes_on_with_the_trials_of_its_engine(optimise):
    optimise(lambda number: [0.5], 1)
    study, context = optimise(lambda number: [0.6], 1)
    assert [(trial.number, trial.score) for trial in trials.known(context, "search")] == [(1, 0.5), (2, 0.6)]
    assert sorted(trial.value for trial in study.trials) == [0.5, 0.6]
    assert trials.engines(context, "search") == {"spark"}
