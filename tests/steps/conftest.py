"""A store of one's own for every test of a step, and one small finished workflow that several tests look at."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import mlflow
import pytest

from steps.runtime.runner import main

ROOT = Path(__file__).resolve().parents[2]
# A workflow of seconds: few phantoms, small pictures.
SMALL = ("data.sample_images=60", "model.input_size=64", "train.epochs=2", "finetune.epochs=1", "precision=float32",
         "registry.gate.minimum.auc_pneumonia=null", "registry.gate.minimum.balanced_accuracy=null")  # fmt: skip


@dataclass(frozen=True)
class Workflow:
    """A store with a finished `main` in it, and how to run more there."""

    uri: str
    experiment_id: str
    folder: Path
    environment: dict[str, str]
    output: str

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(self.uri)

    def project(self, entry_point: str, *settings: str, timeout: float = 300) -> subprocess.CompletedProcess:
        """`mlflow run . -e ENTRY_POINT -P ...`, as a user types it."""
        return subprocess.run(
            self.command(entry_point, *settings),
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def command(self, entry_point: str, *settings: str) -> list[str]:
        words = [str(Path(sys.executable).parent / "mlflow"), "run", str(ROOT), "-e", entry_point]
        words += ["--env-manager", "local", "--experiment-id", self.experiment_id]
        last = dict(setting.split("=", 1) for setting in (f"log_dir={self.folder / 'logs'}", *settings))
        for name, value in last.items():  # MLflow refuses a name that is given twice
            words += ["-P", f"{name}={value}"]
        return words

    def runs(self, step: str, status: str = "FINISHED") -> list[mlflow.entities.Run]:
        """Runs of a step, newest first."""
        text = f"tags.`cxr.step` = '{step}' and attributes.status = '{status}'"
        return list(self.client.search_runs([self.experiment_id], text, order_by=["attributes.start_time DESC"]))

    def first(self, step: str) -> mlflow.entities.Run:
        """The run of a step that the first `main` made."""
        return self.runs(step)[-1]

    def artifact(self, run: mlflow.entities.Run, path: str) -> Path:
        return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path,
                                                        tracking_uri=self.uri))  # fmt: skip


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> bytes:
    """The schema of an empty store: making it takes seconds, so it is made once and copied."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file.read_bytes()


@pytest.fixture(scope="session")
def new_workflow(tmp_path_factory, empty_database) -> Callable[..., Workflow]:
    """Makes a workspace with an empty store and runs `main` in it with the small settings and those given."""

    def make(*settings: str, run: bool = True) -> Workflow:
        folder = tmp_path_factory.mktemp("workflow")
        (folder / "mlflow.db").write_bytes(empty_database)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        environment |= {"MLFLOW_TRACKING_URI": uri, "XDG_CACHE_HOME": str(tmp_path_factory.getbasetemp() / "cache")}
        experiment = mlflow.MlflowClient(uri).create_experiment("cxr", (folder / "artifacts").as_uri())
        made = Workflow(uri, experiment, folder, environment, "")
        if not run:
            return made
        done = made.project("main", *SMALL, *settings)
        assert done.returncode == 0, done.stdout + done.stderr
        return replace(made, output=done.stdout + done.stderr)

    return make


@pytest.fixture(scope="session")
def workflow(new_workflow) -> Workflow:
    """A finished `main` that tests may add runs to, but never take from."""
    return new_workflow()


@pytest.fixture
def store(tmp_path, monkeypatch, empty_database) -> str:
    """Tracking URI of a fresh sqlite store in `tmp_path`, set for this process and those it starts."""
    (tmp_path / "mlflow.db").write_bytes(empty_database)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("test", artifact_location=(tmp_path / "artifacts").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    mlflow.set_experiment(experiment_id=experiment)
    yield uri
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def experiment_id(store) -> str:
    return os.environ["MLFLOW_EXPERIMENT_ID"]


@pytest.fixture
def run_step(store, tmp_path):
    """Run a step as MLflow runs it, in a process of its own; returns the finished process."""

    def run(step: str, *argv: str, timeout: float = 240) -> subprocess.CompletedProcess:
        words = [sys.executable, "-m", f"steps.{step}", "--log_dir", str(tmp_path / "logs"), *argv]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)

    return run


@pytest.fixture
def refused(workflow, monkeypatch, capfd):
    """Run a step in this process against the finished workflow; it must fail. Returns its one line."""
    for name, value in {"MLFLOW_TRACKING_URI": workflow.uri, "MLFLOW_EXPERIMENT_ID": workflow.experiment_id}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    mlflow.set_tracking_uri(workflow.uri)
    mlflow.set_experiment(experiment_id=workflow.experiment_id)
    before = signal.getsignal(signal.SIGTERM)

    def run(step: str, **given: object) -> str:
        module = import_module(f"steps.{step}")
        argv = [word for name, value in given.items() for word in (f"--{name.replace('__', '.')}", str(value))]
        known = {run.info.run_id for run in workflow.client.search_runs([workflow.experiment_id])}
        with pytest.raises(SystemExit) as leave:
            main(module.STEP, module.work, ["--log_dir", str(workflow.folder / "logs"), *argv])
        assert leave.value.code == 1
        made = [r for r in workflow.client.search_runs([workflow.experiment_id]) if r.info.run_id not in known]
        assert [run.info.status for run in made] in (["FAILED"], [])  # none: refused before a run was open
        printed = capfd.readouterr().err
        errors = [line for line in printed.splitlines() if "ERROR" in line]
        assert len(errors) == 1, printed
        assert "Traceback" not in printed
        if made:
            assert made[0].data.tags["cxr.error"] in errors[0]
        return errors[0]

    yield run
    signal.signal(signal.SIGTERM, before)
