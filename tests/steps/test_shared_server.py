"""A group that shares a tracking server: PostgreSQL behind it, artifacts through it, and a folder for everyone."""

import os
import re
import signal
import time
from collections.abc import Callable

import mlflow
import pandas as pd
import pytest

from cxr.datasets import phantom
from steps.registry import registry
from tests.helpers import wait_for
from tests.steps.conftest import PLAIN, SMALL, Workflow, workspace
from tests.steps.test_workflow import STEPS, epochs_seen, processes_of

MODEL = "cxr-pneumonia"
QUICK = (*SMALL, *PLAIN)
EPOCHS = 120
LONG = (
    "model.input_size=64",
    "train.optimizer.lr=3e-4",
    "precision=float32",
    f"train.epochs={EPOCHS}",
    f"train.patience={EPOCHS}",
)
AWAY_S = 3.0


@pytest.fixture(scope="module")
def checkouts(tracking_server, tmp_path_factory, programs) -> Callable[..., list[Workflow]]:
    """Function that makes working folders of several people, whose machines share nothing but the server."""

    def make(experiment: str, number: int) -> list[Workflow]:
        made = mlflow.MlflowClient(tracking_server.uri).create_experiment(experiment)
        folders = [tmp_path_factory.mktemp(experiment) for _ in range(number)]
        for folder in folders:
            (folder / "tmp").mkdir()
        return [
            workspace(
                folder, programs, tracking_server.uri, made, TMPDIR=folder / "tmp", XDG_CACHE_HOME=folder / "cache"
            )
            for folder in folders
        ]

    return make


def all_at_once(everyone: list[Workflow], *settings: str, timeout: float) -> list[str]:
    """Start `main` in every folder, each with a seed of its own; returns what they print when all have finished."""
    files = [one.folder / "main.log" for one in everyone]
    started = []
    for seed, (one, file) in enumerate(zip(everyone, files, strict=True)):
        with file.open("w") as out:
            started.append(one.start("main", *QUICK, f"seed={seed}", *settings, forked=True, stdout=out, stderr=out))
    end = time.monotonic() + timeout
    try:
        for process, file in zip(started, files, strict=True):
            assert process.wait(max(1.0, end - time.monotonic())) == 0, file.read_text()
    finally:
        for process in started:
            process.kill()
    return [file.read_text() for file in files]


def check(everyone: list[Workflow], model: str) -> None:
    """Nobody's run is lost, and one version after the other was judged: only the first of them without a champion."""
    one, number = everyone[0], len(everyone)
    runs = one.client.search_runs([one.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {step: len(one.runs(step)) for step in ("main", *STEPS)} == dict.fromkeys(("main", *STEPS), number)
    for run in one.runs("train"):
        steps = [metric.step for metric in one.client.get_metric_history(run.info.run_id, "val_loss")]
        assert steps == [0, 1, 2]
        assert {file.path for file in one.client.list_artifacts(run.info.run_id)} >= {"bundle", "checkpoint", "logs"}
    versions = sorted(one.client.search_model_versions(f"name='{model}'"), key=lambda version: int(version.version))
    evaluated = {run.info.run_id for run in one.runs("evaluate")}
    assert len(versions) == number and {version.tags["cxr.evaluate_run_id"] for version in versions} == evaluated
    verdicts = [version.tags["cxr.gate"] for version in versions]
    assert [verdict for verdict in verdicts if "there was none before" in verdict] == verdicts[:1]
    crowned = [str(v.version) for v in versions if v.tags["cxr.gate"].startswith("champion")]
    assert [entry["version"] for entry in registry.history(one.client, model)] == crowned
    assert str(one.client.get_model_version_by_alias(model, "champion").version) == crowned[-1]
    assert [m.name for m in one.client.search_registered_models(f"name LIKE '{model}%'")] == [model]  # and no lock


@pytest.fixture(scope="module")
def group(checkouts) -> list[Workflow]:
    """Two people who have each run `main`, at the same time."""
    everyone = checkouts("group", 2)
    all_at_once(everyone, timeout=1200)
    return everyone


def test_two_at_once_leave_one_champion_and_lose_no_run(group):
    check(group, MODEL)


def test_unchanged_steps_are_reused_by_another_person_too(group):
    first, other = group
    again = other.project("main", *QUICK, "seed=0")
    assert again.returncode == 0, again.stderr
    reused = re.findall(r"(\w+): reused run (\w+), nothing has changed", again.stderr)
    assert [step for step, _ in reused] == list(STEPS)
    assert all(first.client.get_run(run_id).data.tags["cxr.step"] == step for step, run_id in reused)
    assert f"MLFLOW_TRACKING_URI={first.uri} mlflow models serve -m 'models:/{MODEL}@champion'" in again.stdout


def test_the_champion_is_served_and_predicts_from_the_server(group, monkeypatch, exit_of, tmp_path):
    person = group[1]
    person.enter(monkeypatch)
    (tmp_path / "images").mkdir()
    pictures = {label: phantom.example(label) for label in ("normal", "virus")}
    for label, data in pictures.items():
        (tmp_path / f"images/{label}.jpeg").write_bytes(data)
    served = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    answers = served.predict(pd.DataFrame({"image": list(pictures.values())}))
    output = tmp_path / "preds.parquet"
    assert exit_of("predict", input=tmp_path / "images", output=output, log_dir=tmp_path / "logs") == 0
    rows = pd.read_parquet(output)
    for name in [name for name in answers if name.startswith("probability_")]:
        assert rows[name].tolist() == pytest.approx(answers[name].tolist(), abs=1e-5)
    champion = str(person.client.get_model_version_by_alias(MODEL, "champion").version)
    assert set(rows["model_version"]) == set(answers["model_version"]) == {champion}


def test_the_champion_is_chosen_by_hand(group, monkeypatch, exit_of, tmp_path):
    person = group[1]
    person.enter(monkeypatch)
    champion = int(person.client.get_model_version_by_alias(MODEL, "champion").version)
    other = champion % 2 + 1
    assert exit_of("promote", version=other, reason="tried at the bedside", log_dir=tmp_path / "logs") == 0
    assert int(person.client.get_model_version_by_alias(MODEL, "champion").version) == other
    assert exit_of("promote", version="previous", reason="not better", log_dir=tmp_path / "logs") == 0
    assert [int(entry["version"]) for entry in registry.history(person.client, MODEL)[-2:]] == [other, champion]


@pytest.mark.parametrize("entry_point", ["train", pytest.param("main", marks=pytest.mark.long)])
def test_a_training_goes_on_when_its_database_was_away_and_after_it_was_killed(
    tracking_server, checkouts, group, entry_point
):
    [person] = checkouts(f"outage-{entry_point}", 1)
    settings, resume = (*QUICK, *LONG, "registry.register=false"), ()
    if entry_point == "train":
        settings = (*LONG, f"split_run_id={group[0].first('prepare_split').info.run_id}")
    log = person.folder / "log.txt"

    def seen() -> int:
        return sum(map(len, epochs_seen(person)))

    with log.open("w") as out:
        started = person.start(entry_point, *settings, forked=True, stdout=out, stderr=out)
    try:
        wait_for(lambda: person.runs("train", "RUNNING") and seen() > 3)
        tracking_server.database.stop()
        time.sleep(AWAY_S)
        tracking_server.database.start()
        before = seen()
        wait_for(lambda: seen() > before + 3)
        printed = log.read_text()
        [training] = person.runs("train", "RUNNING")
    finally:
        for process in processes_of(person.folder):
            os.kill(process.pid, signal.SIGKILL)
        started.wait(60)
    away = f"WARNING: the MLflow store {person.uri} does not answer (status 503); trying again for up to 4 minutes"
    assert printed.count(away) == 1
    assert printed.count("the MLflow store answers again, after") == 1
    assert "ERROR" not in printed and "urllib3" not in printed and "Traceback" not in printed
    [epochs] = epochs_seen(person)
    assert epochs == list(range(len(epochs))) and len(epochs) < EPOCHS  # none lost, none stored twice
    if entry_point == "train":
        resume = (f"resume={training.info.run_id}",)
    done = person.project(entry_point, *settings, *resume)
    assert done.returncode == 0, done.stderr
    assert f"resuming run {training.info.run_id} after epoch" in done.stderr
    [epochs] = epochs_seen(person)
    assert sorted(set(epochs)) == list(range(EPOCHS + 1))
    assert person.client.get_run(training.info.run_id).info.status == "FINISHED"


@pytest.mark.long
def test_ten_at_once_leave_one_champion_and_lose_no_run(checkouts):
    everyone = checkouts("ten", 10)
    all_at_once(everyone, "registry.name=of-ten", timeout=1500)
    check(everyone, "of-ten")
