"""A store for each test of a step, and one small finished workflow that several tests look at."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow
import pytest

from cxr.datasets.manifest import Manifest
from steps.runtime.runner import main
from tests.steps import preloaded, tracking, undrawn
from tests.steps.tracking import Tracking

ROOT = Path(__file__).resolve().parents[2]
# A workflow of seconds: few phantoms, small images; at these learning rates every step improves on the one before.
SMALL = (
    "data.sample_images=60",
    "model.input_size=64",
    "train.epochs=2",
    "train.optimizer.lr=3e-4",
    "finetune.epochs=1",
    "finetune.optimizer.lr=1e-4",
    "precision=float32",
    "registry.gate.minimum.auc_finding=null",
    "registry.gate.minimum.balanced_accuracy=null",
)
# Of an evaluation that is about something else.
PLAIN = ("evaluate.robustness=false", "evaluate.map_images=0", "evaluate.gallery=0")
UNDRAWN = {undrawn.VARIABLE: "1"}


@dataclass(frozen=True)
class Workflow:
    """A store with a finished `main` in it, and the means to run more steps there."""

    uri: str
    experiment_id: str
    folder: Path
    environment: dict[str, str]
    programs: Path
    output: str = ""

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(self.uri)

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make its store that of this process for the rest of the test."""
        for name, value in {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_ID": self.experiment_id}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_experiment(experiment_id=self.experiment_id)

    def project(
        self, entry_point: str, *settings: str, timeout: float = 1200, drawn: bool = False
    ) -> subprocess.CompletedProcess:
        """Run `mlflow run . -e ENTRY_POINT -P ...`, as a user types it; its processes are forks of `preloaded`.

        Only if `drawn` are its figures more than a dot.
        """
        environment = self.environment if drawn else self.environment | UNDRAWN
        return subprocess.run(
            self.command(self.programs, entry_point, *settings),
            cwd=self.folder,
            env=preloaded.first_on_path(self.programs, environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, entry_point: str, *settings: str, forked: bool = False, **options: Any) -> subprocess.Popen:
        """Start it in a session of its own: new processes, to send signals to, or `forked` ones, which begin sooner.

        What it prints is dropped, unless `options` of Popen say otherwise; `forked` ones draw no figures.
        """
        programs = self.programs if forked else Path(sys.executable).parent
        return subprocess.Popen(
            self.command(programs, entry_point, *settings),
            cwd=self.folder,
            env=preloaded.first_on_path(programs, self.environment | UNDRAWN),
            start_new_session=True,
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options},
        )

    def command(self, programs: Path, entry_point: str, *settings: str) -> list[str]:
        """Command line of an entry point, with the log folder of the workspace."""
        command = [str(programs / "mlflow"), "run", str(ROOT), "-e", entry_point]
        command += ["--env-manager", "local", "--experiment-id", self.experiment_id]
        # The last value of a name counts; MLflow refuses a name that is given twice.
        parameters = dict(setting.split("=", 1) for setting in (f"log_dir={self.folder / 'logs'}", *settings))
        for name, value in parameters.items():
            command += ["-P", f"{name}={value}"]
        return command

    def runs(self, step: str, status: str = "FINISHED") -> list[mlflow.entities.Run]:
        """Runs of a step, newest first."""
        query = f"tags.`cxr.step` = '{step}' and attributes.status = '{status}'"
        return list(self.client.search_runs([self.experiment_id], query, order_by=["attributes.start_time DESC"]))

    def first(self, step: str) -> mlflow.entities.Run:
        """The run of a step that the first `main` started."""
        return self.runs(step)[-1]

    def artifact(self, run: mlflow.entities.Run, path: str) -> Path:
        """Local copy of an artifact of a run."""
        return Path(
            mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=path, tracking_uri=self.uri)
        )


def workspace(folder: Path, programs: Path, uri: str, experiment_id: str, **variables: object) -> Workflow:
    """A folder from which someone uses a store; `variables` are added to the environment of what runs there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"MLFLOW_TRACKING_URI": uri, **{name: str(value) for name, value in variables.items()}}
    return Workflow(uri, experiment_id, folder, environment, programs)


@pytest.fixture(scope="session")
def programs(session_store) -> Iterator[Path]:
    """A folder with the programs `mlflow` and `python`, whose processes begin with their imports done."""
    with tempfile.TemporaryDirectory(prefix="cxr-programs-") as folder, preloaded.running(Path(folder)) as made:
        yield made


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> bytes:
    """An empty store as a file; creating the schema takes seconds, so it is done once and copied."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file.read_bytes()


@pytest.fixture(scope="session")
def new_workflow(tmp_path_factory, empty_database, programs) -> Callable[..., Workflow]:
    """Function that creates a workspace with an empty store and runs `main` in it, with `SMALL` and other settings."""

    def create(*settings: str, run: bool = True, drawn: bool = False) -> Workflow:
        folder = tmp_path_factory.mktemp("workflow")
        (folder / "mlflow.db").write_bytes(empty_database)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        experiment = mlflow.MlflowClient(uri).create_experiment("cxr", (folder / "artifacts").as_uri())
        workflow = workspace(folder, programs, uri, experiment)
        if not run:
            return workflow
        finished = workflow.project("main", *SMALL, *settings, drawn=drawn)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return replace(workflow, output=finished.stdout + finished.stderr)

    return create


@pytest.fixture(scope="session")
def workflow(new_workflow) -> Workflow:
    """A finished `main`; tests may add runs to it, but must not remove any."""
    return new_workflow(drawn=True)


@pytest.fixture(scope="session")
def tracking_server(tmp_path_factory) -> Iterator[Tracking]:
    """A tracking server with PostgreSQL behind it."""
    with tracking.running(tmp_path_factory.mktemp("tracking")) as running:
        yield running


@pytest.fixture
def store(tmp_path, monkeypatch, empty_database) -> Iterator[str]:
    """Tracking URI of an empty sqlite store in `tmp_path`, set for this process and those it starts."""
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
def run_step(store, tmp_path, programs):
    """Function that runs a step in a process of its own, as MLflow does, and returns the finished process."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store}

    def run(step: str, *argv: str, timeout: float = 900) -> subprocess.CompletedProcess:
        command = [str(programs / "python"), "-m", f"steps.{step}", "--log_dir", str(tmp_path / "logs"), *argv]
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


def parameters(*settings: str) -> dict[str, str]:
    """Settings of a command line as `exit_of` and its like take them."""
    return {name.replace(".", "__"): value for name, value in (setting.split("=", 1) for setting in settings)}


def manifest_of(run: mlflow.entities.Run) -> Manifest:
    """The manifest that a `prepare_split` run has logged."""
    return Manifest.load(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="split"))


@pytest.fixture
def exit_of(one_export):
    """Function that runs a step in this process, without drawing its figures, and returns its exit status."""
    handlers = {which: signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)}

    def run(step: str, **parameters: object) -> int:
        argv = [word for name, value in parameters.items() for word in (f"--{name.replace('__', '.')}", str(value))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("matplotlib.figure.Figure.savefig", undrawn.save)
            with pytest.raises(SystemExit) as exit_:
                main(import_module(f"steps.{step}").STEP, argv)
        return exit_.value.code

    yield run
    for which, handler in handlers.items():
        signal.signal(which, handler)


@pytest.fixture
def in_process(workflow, monkeypatch, exit_of):
    """Function that runs a step in this process against the finished workflow, and returns its exit status."""
    workflow.enter(monkeypatch)
    return lambda step, **parameters: exit_of(step, **{"log_dir": workflow.folder / "logs", **parameters})


@pytest.fixture
def refused(workflow, in_process, capfd):
    """Function that runs a step in this process against the finished workflow, where it must fail.

    Returns the one line of its error.
    """

    def run(step: str, **parameters: object) -> str:
        began = time.time_ns() // 1_000_000
        assert in_process(step, **parameters) == 1
        # Not all runs: the store has hundreds, and to load them would take longer than most refusals.
        new_runs = workflow.client.search_runs([workflow.experiment_id], f"attributes.start_time >= {began}")
        assert [run.info.status for run in new_runs] in (["FAILED"], [])  # none: refused before a run was open
        printed = capfd.readouterr().err
        errors = [line for line in printed.splitlines() if "ERROR" in line]
        assert len(errors) == 1, printed
        assert "Traceback" not in printed
        if new_runs:
            assert new_runs[0].data.tags["cxr.error"] in errors[0]
        return errors[0]

    return run
