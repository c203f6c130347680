"""Find the run that a step starts from, and mark runs that a crash left behind."""

import subprocess
import sys

import mlflow
import psutil
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from cxr.errors import CxrError
from steps.runtime import process, runs
from tests.steps.conftest import ROOT


@pytest.fixture
def client(store):
    return mlflow.MlflowClient()


def make(client, experiment_id, kind, status="FINISHED", **tags):
    tags = {f"cxr.{name}": value for name, value in tags.items()}
    run = client.create_run(experiment_id, tags={"cxr.step": kind, **tags} if kind else tags)
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status)
    return run.info.run_id


def test_the_newest_finished_run_of_the_right_kind_is_found(client, experiment_id):
    make(client, experiment_id, "train")
    newest = make(client, experiment_id, "train")
    make(client, experiment_id, "train", status="FAILED")
    make(client, experiment_id, "prepare_split")
    assert runs.find(client, experiment_id, ("train",), "", "train_run_id").info.run_id == newest


def test_the_newest_of_several_kinds_is_found(client, experiment_id):
    make(client, experiment_id, "finetune")
    newest = make(client, experiment_id, "train")
    assert runs.find(client, experiment_id, ("finetune", "train"), "", "run_id").info.run_id == newest


def test_trials_of_a_search_are_not_the_newest_run(client, experiment_id):
    newest = make(client, experiment_id, "finetune")
    trial = make(client, experiment_id, "finetune", trial="0123")
    assert runs.find(client, experiment_id, ("finetune",), "", "run_id").info.run_id == newest
    assert runs.find(client, experiment_id, ("finetune",), trial, "run_id").info.run_id == trial


def test_folds_are_not_the_newest_run(client, experiment_id):
    fold = make(client, experiment_id, "train", fold="0123")
    with pytest.raises(CxrError, match="no finished train run in this experiment but those of folds and of trials of"):
        runs.find(client, experiment_id, ("train",), "", "train_run_id")
    assert runs.find(client, experiment_id, ("train",), fold, "train_run_id").info.run_id == fold
    ensemble = make(client, experiment_id, "ensemble")
    make(client, experiment_id, "train", fold="0123")
    assert runs.find(client, experiment_id, ("train", "ensemble"), "", "run_id").info.run_id == ensemble


def test_nothing_to_start_from_names_the_command(client, experiment_id):
    with pytest.raises(CxrError, match=r"run `mlflow run \. -e train` first"):
        runs.find(client, experiment_id, ("train",), "", "train_run_id")


@pytest.mark.parametrize(
    "kind, status, words",
    [
        ("prepare_split", "FINISHED", "expected a run of train, got a run of 'prepare_split'"),
        ("train", "FAILED", "expected a finished run, got one that is FAILED"),
        (None, "FINISHED", "expected a run of train, got a run of no step"),
    ],
)
def test_a_run_of_another_kind_or_status_is_refused(client, experiment_id, kind, status, words):
    run_id = make(client, experiment_id, kind, status)
    with pytest.raises(CxrError, match=words):
        runs.find(client, experiment_id, ("train",), run_id, "train_run_id")


def test_a_run_that_does_not_exist_is_refused(client, experiment_id):
    with pytest.raises(CxrError, match="train_run_id=0123: no run with this ID in"):
        runs.find(client, experiment_id, ("train",), "0123", "train_run_id")


def test_an_error_of_the_store_does_not_pass_for_a_run_that_is_not_there(client, monkeypatch):
    def locked(_):
        raise MlflowException("database is locked", error_code=INTERNAL_ERROR)

    assert runs.known(client, "0123") is None
    monkeypatch.setattr(client, "get_run", locked)
    with pytest.raises(MlflowException, match="database is locked"):
        runs.known(client, "0123")


def gone() -> str:
    """Identity of a process of this machine that has ended: this one, with another start time."""
    host, pid, _ = process.identity().rsplit(":", 2)
    return f"{host}:{pid}:{psutil.Process().create_time() - 100}"


def test_runs_of_dead_processes_are_marked_and_others_left_alone(client, experiment_id):
    dead = make(client, experiment_id, "main", "RUNNING", process=gone())
    child = client.create_run(experiment_id, tags={"mlflow.parentRunId": dead}).info.run_id
    alive = make(client, experiment_id, "train", "RUNNING", process=process.identity())
    elsewhere = make(client, experiment_id, "train", "RUNNING", process="another-host:1:1.0")
    unknown = make(client, experiment_id, None, "RUNNING")
    assert set(runs.mark_abandoned(client, experiment_id)) == {dead, child}
    status = {run_id: client.get_run(run_id).info.status for run_id in (dead, child, alive, elsewhere, unknown)}
    assert status == {dead: "KILLED", child: "KILLED", alive: "RUNNING", elsewhere: "RUNNING", unknown: "RUNNING"}


def test_half_written_artifacts_of_a_killed_step_are_removed(client, experiment_id):
    dead = make(client, experiment_id, "train", "RUNNING", process=gone())
    folder = runs.artifact_folder(client, dead) / "checkpoint"
    code = """
import os, signal, sys
from cxr.common.files import write_atomic
write_atomic(sys.argv[1], b"whole")
write_atomic(sys.argv[1], lambda file: (file.write(b"half"), file.flush(), os.kill(os.getpid(), signal.SIGKILL)))
"""
    subprocess.run([sys.executable, "-c", code, folder / "last.pt"], cwd=ROOT, check=False)
    assert len(list(folder.iterdir())) == 2
    assert runs.mark_abandoned(client, experiment_id) == [dead]
    assert [(file.name, file.read_bytes()) for file in folder.iterdir()] == [("last.pt", b"whole")]


def test_a_process_differs_from_a_later_one_with_the_same_pid():
    assert process.alive(process.identity())
    assert not process.alive(gone())
