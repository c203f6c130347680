"""A store of one's own for every test of a step."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> bytes:
    """The schema of an empty store: making it takes seconds, so it is made once and copied."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file.read_bytes()


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
