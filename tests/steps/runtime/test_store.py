"""The MLflow store is made once and whole, and a store that cannot be used is named."""

import os
import signal
import subprocess
import sys

import mlflow
import pytest

from cxr.errors import CxrError
from steps.runtime import store
from steps.runtime.cli import Step
from tests.steps.conftest import ROOT

STEP = Step(name="main", about="A step for tests.")


@pytest.mark.parametrize("damaged", [False, True], ids=["no folder", "no database"])
def test_a_store_that_cannot_be_used_is_named(tmp_path, damaged):
    (tmp_path / "file").write_text("not a database")
    uri = f"sqlite:///{tmp_path}/file{'' if damaged else '/mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    with pytest.raises(CxrError, match=f"the MLflow store {uri} cannot be used"):
        store.open_run(STEP)


@pytest.mark.slow
def test_steps_that_start_together_make_the_store_once(tmp_path):
    code = """
import sys, types
from steps.runtime.cli import Step
from steps.runtime.runner import main
sys.modules["steps.work.main"] = types.SimpleNamespace(run=lambda context: None)
main(Step(name="main", about="A step for tests."), ["--log_dir", sys.argv[1]])
"""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/new.db", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path / "logs")]
    started = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    printed = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, "".join(printed)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/new.db")
    assert {run.info.status for run in client.search_runs(["0"])} == {"FINISHED"}


OPEN = """
import os, signal, sys, threading, time
import mlflow
from steps.runtime import store
from steps.runtime.cli import Step

def kill():
    while not os.listdir(sys.argv[1]):
        time.sleep(0.001)
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)

mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/new.db")
if "kill" in sys.argv:
    threading.Thread(target=kill).start()
store.open_run(Step(name="main", about=""))
"""


def test_a_store_whose_making_was_killed_is_made_again(tmp_path):
    command = [sys.executable, "-c", OPEN, str(tmp_path)]
    assert subprocess.run([*command, "kill"], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "new.db").exists()
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["new.db"]
