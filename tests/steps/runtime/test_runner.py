"""Status, logs, artifacts and error message of a step, whatever its work."""

import errno
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import mlflow
import pytest
import torch

from bench.faults.mounts import CannotMountError, small_disk
from cxr.errors import CxrError
from steps.runtime import context as context_module
from steps.runtime import scratch
from steps.runtime.cli import Step
from steps.runtime.runner import main
from tests.steps.conftest import ROOT

STEP = Step(name="main", about="A step for tests.", short={"epochs": "train.epochs"}, flags={"reuse": "x"})


@pytest.fixture
def run(store, tmp_path, monkeypatch):
    """Run a function as the work of a step; returns its exit status and its run."""
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    before = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)}

    def run(work, *argv):
        monkeypatch.setitem(sys.modules, f"steps.work.{STEP.name}", types.SimpleNamespace(run=work))
        with pytest.raises(SystemExit) as exit_:
            main(STEP, ["--log_dir", str(tmp_path / "logs"), *argv])
        runs = mlflow.MlflowClient().search_runs([os.environ["MLFLOW_EXPERIMENT_ID"]])
        return exit_.value.code, runs[0] if runs else None

    yield run
    for which, handler in before.items():
        signal.signal(which, handler)


def artifact(run, path) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path))


def test_a_step_that_works_leaves_settings_logs_and_a_finished_run(run, tmp_path):
    code, step_run = run(lambda context: context.log.info("all is well"), "--epochs", "3")
    assert (code, step_run.info.status) == (0, "FINISHED")
    assert "epochs: 3" in artifact(step_run, "settings.yaml").read_text()
    records = [json.loads(line) for line in artifact(step_run, "logs/info.log").read_text().splitlines()]
    shared = (tmp_path / "logs/info.log").read_text()
    assert [line["message"] for line in records] == ["all is well"]
    assert records[0]["run_id"] == step_run.info.run_id
    assert "all is well" in shared
    assert artifact(step_run, "logs/errors.log").read_text() == ""


@pytest.mark.parametrize(
    "error, words",
    [(CxrError("no such folder x; name one"), "no such folder x; name one"), (ZeroDivisionError("zero"), "zero")],
)
def test_a_failure_is_one_line_exit_1_and_a_failed_run(run, capfd, error, words):
    def work(context):
        raise error

    code, step_run = run(work)
    assert (code, step_run.info.status) == (1, "FAILED")
    assert words in step_run.data.tags["cxr.error"]
    printed = capfd.readouterr().err
    assert words in printed
    assert "Traceback" not in printed


def test_the_console_shows_our_records_by_module_and_warnings_of_libraries(run, capfd):
    def work(context):
        context.log.info("from the step")
        logging.getLogger("cxr.loading.disk_cache").info("from a module")
        logging.getLogger("some.library").info("library chatter")
        logging.getLogger("some.library").warning("library warning")

    code, _ = run(work)
    printed = capfd.readouterr().err
    assert code == 0
    for words in ("main: from the step", "disk_cache: from a module", "some.library: WARNING: library warning"):
        assert f" {words}" in printed
    assert "library chatter" not in printed


def test_the_trace_of_a_bug_is_kept_in_the_error_log(run):
    def work(context):
        raise ZeroDivisionError("zero")

    _, step_run = run(work)
    assert "Traceback" in json.loads(artifact(step_run, "logs/errors.log").read_text())["exc_info"]


def test_wrong_settings_fail_the_run_before_the_work_begins(run, capfd):
    calls = []
    code, step_run = run(calls.append, "--epochs", "none")
    assert (code, step_run.info.status, calls) == (1, "FAILED", [])
    assert "setting train.epochs = 'none'" in capfd.readouterr().err


def test_sigterm_ends_a_step_with_its_cleanup(run):
    def work(context):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    code, step_run = run(work)
    assert (code, step_run.info.status) == (130, "KILLED")


def test_sigterm_while_a_checkpoint_is_written_is_no_bug(run, capfd):
    """`torch.save` then fails to close the file, with an error of its own."""

    class Interrupted(io.BytesIO):
        def write(self, data):
            if self.tell():
                os.kill(os.getpid(), signal.SIGTERM)
            return super().write(data)

    code, step_run = run(lambda context: torch.save({}, Interrupted()))
    assert (code, step_run.info.status) == (130, "KILLED") and "bug" not in capfd.readouterr().err


def test_artifacts_are_replaced_atomically(run, monkeypatch):
    """If the disk is full while a file is replaced, the old file stays as it was, with nothing beside it."""

    def fill_disk(source, target):
        target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    def work(context):
        context.put_text("old", "checkpoint/last.pt")
        with monkeypatch.context() as patch:
            patch.setattr(context_module.shutil, "copyfileobj", fill_disk)
            with pytest.raises(CxrError, match=r"\(No space left on device\); make room"):
                context.put_text("new", "checkpoint/last.pt")

    code, step_run = run(work)
    assert code == 0
    folder = artifact(step_run, "checkpoint")
    assert [f.name for f in folder.iterdir()] == ["last.pt"]
    assert (folder / "last.pt").read_text() == "old"


def test_a_missing_artifact_cannot_be_fetched(run):
    def work(context):
        context.fetch(context.run_id, "bundle")

    _, step_run = run(work)
    assert "has no artifact bundle" in step_run.data.tags["cxr.error"]


def test_a_log_folder_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, step_run = run(lambda context: None, "--log_dir", str(tmp_path / "file" / "logs"))
    assert (code, step_run.info.status) == (1, "FAILED")
    assert "cannot be written (Not a directory)" in step_run.data.tags["cxr.error"]


@pytest.mark.parametrize("thread", [False, True], ids=["step", "thread"])
def test_a_full_log_folder_ends_the_step_with_one_line(run, tmp_path, capfd, thread):
    (tmp_path / "logs").mkdir()
    for name in ("debug", "info"):
        (tmp_path / f"logs/{name}.log").symlink_to("/dev/full")

    def work(context):
        if thread:
            other = threading.Thread(target=context.log.info, args=("one",))
            other.start()
            other.join()
        else:
            context.log.info("one")

    code, step_run = run(work)
    assert (code, step_run.info.status) == (1, "FAILED")
    line = f"log_dir {tmp_path / 'logs'} cannot be written (No space left on device); make room there, or give another"
    assert line in step_run.data.tags["cxr.error"]
    printed = [text for text in capfd.readouterr().err.splitlines() if " main: one" not in text]
    assert len(printed) == 1, (work, printed)
    assert f"main: ERROR: {line}" in printed[0]
    assert "cannot be written" in artifact(step_run, "logs/errors.log").read_text()
    for name in ("debug", "info"):
        (tmp_path / f"logs/{name}.log").unlink()
    assert run(work)[0] == 0


@pytest.fixture
def small_temporary(tmp_path, monkeypatch) -> Path:
    """A folder for temporary files with room for one megabyte."""
    try:
        with small_disk(tmp_path / "temporary", megabytes=1) as folder:
            monkeypatch.setenv("TMPDIR", str(folder))
            monkeypatch.setattr(tempfile, "tempdir", None)
            yield folder
    except CannotMountError as error:
        pytest.skip(str(error))


def test_full_temporary_files_end_the_step_with_one_line(run, capsys, small_temporary):
    def fetch(context):
        big = Path(context._local_root()) / "bundle/model.pt"
        big.parent.mkdir()
        big.write_bytes(bytes(2_000_000))
        context.fetch(context.run_id, "bundle")

    def write(context):
        (context.folder / "last.pt").write_bytes(bytes(2_000_000))

    def log(context):
        (context.folder / "rest").write_bytes(bytes(shutil.disk_usage(small_temporary).free - 8192))
        for _ in range(1000):
            logging.getLogger("steps.main").debug("x" * 100)

    for work in (fetch, write, log):
        code, step_run = run(work)
        line = (
            f"the folder for temporary files {small_temporary} cannot be written (No space left on device); make room"
        )
        assert (code, step_run.info.status) == (1, "FAILED")
        assert line in step_run.data.tags["cxr.error"]
        printed = capsys.readouterr().err.splitlines()
        assert len(printed) == 1, "\n".join(printed)
        assert f"main: ERROR: {line}" in printed[0]
        assert not list(small_temporary.glob(f"{scratch.PREFIX}*"))
    assert run(lambda context: context.put_text("fits", "text"))[0] == 0


def test_a_temporary_folder_without_any_room_fails_the_run(run, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    code, step_run = run(lambda context: None)
    assert (code, step_run.info.status) == (1, "FAILED")
    assert "set TMPDIR to" in step_run.data.tags["cxr.error"]
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_step_removes_what_a_killed_one_has_left(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    left = tmp_path / f"{scratch.PREFIX}train-1"
    left.mkdir()
    assert run(lambda context: None)[0] == 0
    assert not left.exists()


def test_a_signal_waits_for_the_end_of_an_unbroken_call():
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
    process.with_unbroken_calls(Store()).write()
    print("never here")
except KeyboardInterrupt:
    print("stopped")
"""
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.stdout.split() == ["whole", "stopped"], finished.stderr
