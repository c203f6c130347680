"""What every step does around its work: status, logs, artifacts and the words of a failure."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from cxr.errors import CxrError
from steps.runtime import context as context_module
from steps.runtime.cli import Step
from steps.runtime.runner import main
from tests.steps.conftest import ROOT

STEP = Step(name="main", about="A step for tests.", short={"epochs": "train.epochs"}, flags={"reuse": "x"})


@pytest.fixture
def run(store, tmp_path, monkeypatch):
    """Run a piece of work as a step; returns its exit status and its run."""
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    before = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)}

    def run(work, *argv):
        with pytest.raises(SystemExit) as leave:
            main(STEP, work, ["--log_dir", str(tmp_path / "logs"), *argv])
        found = mlflow.MlflowClient().search_runs([os.environ["MLFLOW_EXPERIMENT_ID"]])
        return leave.value.code, found[0] if found else None

    yield run
    for which, handler in before.items():
        signal.signal(which, handler)


def artifact(run, path) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path))


def test_a_step_that_works_leaves_settings_logs_and_a_finished_run(run, tmp_path):
    code, made = run(lambda context: context.log.info("all is well"), "--epochs", "3")
    assert (code, made.info.status) == (0, "FINISHED")
    assert "epochs: 3" in artifact(made, "settings.yaml").read_text()
    kept = [json.loads(line) for line in artifact(made, "logs/info.log").read_text().splitlines()]
    shared = (tmp_path / "logs/info.log").read_text()
    assert [line["message"] for line in kept] == ["all is well"]
    assert kept[0]["run_id"] == made.info.run_id
    assert "all is well" in shared
    assert artifact(made, "logs/errors.log").read_text() == ""


@pytest.mark.parametrize(
    "error, words",
    [(CxrError("no such folder x; name one"), "no such folder x; name one"), (ZeroDivisionError("zero"), "zero")],
)
def test_a_failure_is_one_line_exit_1_and_a_failed_run(run, capfd, error, words):
    def work(context):
        raise error

    code, made = run(work)
    assert (code, made.info.status) == (1, "FAILED")
    assert words in made.data.tags["cxr.error"]
    said = capfd.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_the_trace_of_a_bug_is_kept_in_the_error_log(run):
    def work(context):
        raise ZeroDivisionError("zero")

    _, made = run(work)
    assert "Traceback" in json.loads(artifact(made, "logs/errors.log").read_text())["exc_info"]


def test_wrong_settings_fail_the_run_before_the_work_begins(run, capfd):
    begun = []
    code, made = run(begun.append, "--epochs", "none")
    assert (code, made.info.status, begun) == (1, "FAILED", [])
    assert "setting train.epochs = 'none'" in capfd.readouterr().err


def test_sigterm_ends_a_step_tidily(run):
    def work(context):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    code, made = run(work)
    assert (code, made.info.status) == (130, "KILLED")


def test_artifacts_appear_whole_or_not_at_all(run, monkeypatch):
    """A full disk while a file is replaced leaves the old one as it was, and nothing beside it."""

    def full(source, target):
        target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def work(context):
        context.put_text("old", "checkpoint/last.pt")
        with monkeypatch.context() as patch:
            patch.setattr(context_module.shutil, "copyfileobj", full)
            with pytest.raises(CxrError, match=r"\(No space left on device\); make room"):
                context.put_text("new", "checkpoint/last.pt")

    code, made = run(work)
    assert code == 0
    folder = artifact(made, "checkpoint")
    assert [f.name for f in folder.iterdir()] == ["last.pt"]
    assert (folder / "last.pt").read_text() == "old"


def test_what_a_run_has_not_logged_cannot_be_fetched(run):
    def work(context):
        context.fetch(context.run_id, "bundle")

    _, made = run(work)
    assert "has no bundle to fetch" in made.data.tags["cxr.error"]


def test_a_log_folder_that_cannot_be_made_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, made = run(lambda context: None, "--log_dir", str(tmp_path / "file" / "logs"))
    assert (code, made.info.status) == (1, "FAILED")
    assert "log_dir" in made.data.tags["cxr.error"]


def test_a_store_that_cannot_be_used_is_named(tmp_path, monkeypatch, capfd):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
    mlflow.set_tracking_uri(None)
    with pytest.raises(SystemExit) as leave:
        main(STEP, lambda context: None, [])
    assert leave.value.code == 1
    assert "cannot be used" in capfd.readouterr().err


def test_a_signal_waits_for_a_call_that_must_not_be_broken_off():
    code = """
import os, signal
from steps.runtime import process
process.stop_on_signals()
class Store:
    def write(self):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        print("whole", flush=True)
try:
    process.Unbroken(Store()).write()
    print("never here")
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["whole", "stopped"], done.stderr
