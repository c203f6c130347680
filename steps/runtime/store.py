"""The MLflow store: made once and whole, and opened with a run of the step."""

import logging
import os
import tempfile
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from cxr.common.files import publish
from cxr.errors import CxrError
from steps.runtime import disks, outage, process, runs
from steps.runtime.cli import Step


def open_run(step: Step) -> Run:
    """The run that MLflow has opened for this step, or a new one; raises `CxrError` if the store cannot be used."""
    uri = mlflow.get_tracking_uri()
    try:
        with process.unbroken(), _alone(uri):
            _make(uri)
            run = mlflow.start_run(log_system_metrics=step.system_metrics)
            mlflow.set_tags({"cxr.step": step.name, "mlflow.runName": step.name} | _of_many(run, step))
    except (MlflowException, SQLAlchemyError, OSError) as error:
        other = CxrError(f"the MLflow store {outage.shown(uri)} cannot be used: {str(error).splitlines()[0]}")
        raise outage.given_up(error) or disks.problem(error, uri, []) or other from None
    return run


def _of_many(run: Run, step: Step) -> dict[str, str]:
    """The tag of a run that belongs to a trial of a search, or to a fold."""
    parent = run.data.tags.get("mlflow.parentRunId")
    if parent is None:
        return {}
    driver = mlflow.get_run(parent).data.tags
    if driver.get("cxr.step") == "trial":
        return {runs.TRIAL: parent}
    return {runs.FOLD: parent} if runs.FOLDS in driver and step.name not in ("ensemble", "evaluate") else {}


def quiet() -> None:
    """Silence MLflow's progress bars and its notices about the store; new tries of its requests are told in a line."""
    outage.watch()
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It prints the trace of every error of the database, which it raises as well: the step tells it in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # It warns where pip is missing; environments made by uv have none, and models list every package they need.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)


def _alone(uri: str) -> AbstractContextManager[object]:
    """A lock for the first contact with a database: two processes that make its tables at once damage it."""
    if not uri.startswith("sqlite:"):
        return nullcontext()
    name = f"cxr-store-{sha256(uri.encode()).hexdigest()[:16]}.lock"
    return FileLock(Path(tempfile.gettempdir()) / name, mode=0o666)


def _make(uri: str) -> None:
    """Make a missing database under another name: killed while it makes the tables, MLflow leaves it unusable."""
    file = make_url(uri).database if uri.startswith("sqlite:") else None
    if not file or file == ":memory:" or Path(file).exists():
        return
    half = Path(file).with_name(f".{Path(file).name}.half")
    for leftover in half.parent.glob(f"{half.name}*"):  # of a killed process; a journal of it would be played back
        leftover.unlink()
    mlflow.MlflowClient(f"sqlite:///{half}").search_experiments()
    publish(half, Path(file))
