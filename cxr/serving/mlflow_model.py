"""The model that MLflow serves: bytes of pictures in, one row of answers for each out.

Logged as code (MLflow's models-from-code) with the folder that `cxr.packaging.package` writes as its only artifact;
nothing is unpickled. The answers come from `cxr.serving.service`; this module adapts them to MLflow, and
MLflow's server to them (`cxr.serving.server`).
"""

import os
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from cxr.common.hardware import cores
from cxr.errors import BusyError, ImageError
from cxr.serving import body
from cxr.serving.budget import WAITING
from cxr.serving.request import COLUMN
from cxr.serving.service import ARTIFACT, Service

_SERVER = "mlflow.pyfunc.scoring_server"
_APPLICATION = f"{_SERVER}.app"  # loads the model while it is imported, by the processes of the server only


class Refused(MlflowException):
    """A request that is answered with one line, and a status of 400 unless another is given.

    `line` stays as it is, whatever MLflow adds to the message on the way.
    """

    def __init__(self, line: str, status: int = 400):
        self.line, self.status = line, status
        super().__init__(line, error_code=INVALID_PARAMETER_VALUE)


class ServedModel(PythonModel):
    """Answers one row for each image in the column `image` (see `cxr.serving.service.columns`)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the network and run it once, so that the first caller does not wait for it."""
        folder = Path(context.artifacts[ARTIFACT])
        name, version = _registered(folder)
        # Two at least: connections are not spread evenly over the processes.
        threads = min(cores(), max(2, cores() // _workers()))
        self.service = Service(folder, threads=threads, version=version, waiting=WAITING)
        if _APPLICATION in sys.modules:
            from cxr.serving import metrics, server  # here, not above: others need no server

            seconds = float(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())
            server.prepare(sys.modules[_SERVER], self.service, metrics.Registered(name, version), seconds)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A table with the answers, in the order of the rows; see `Service.answer` for `params`."""
        given = params or {}
        try:
            return self.service.answer(
                _column(model_input),
                point=str(given.get("operating_point") or ""),
                with_heatmap=bool(given.get("heatmap", False)),
                strict=bool(given.get("strict", True)),
                measured=bool(given.get("measured", False)),
            )
        except ImageError as error:
            raise Refused(str(error)) from None
        except BusyError as error:
            raise Refused(str(error), error.status) from None


def _column(model_input: Any) -> list[Any]:
    if isinstance(model_input, dict):
        model_input = pd.DataFrame({name: list(np.atleast_1d(cells)) for name, cells in model_input.items()})
    if isinstance(model_input, pd.DataFrame) and COLUMN in model_input.columns:
        return list(model_input[COLUMN])
    raise Refused(body.NO_COLUMN)


def _registered(folder: Path) -> tuple[str, str]:
    """Name and version in the registry, which MLflow writes beside a model that it downloads from there."""
    file = folder.parents[1] / "registered_model_meta"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    words = dict(line.split(": ", 1) for line in lines if ": " in line)
    name, version = (words.get(key, "not registered").strip().strip("'\"") for key in ("model_name", "model_version"))
    return name, version


def _workers() -> int:
    """Number of processes of the server, which share the cores."""
    words = sys.argv
    given = [words[words.index(flag) + 1] for flag in ("--workers", "-w") if flag in words[:-1]]
    given.append(os.environ.get("WEB_CONCURRENCY", ""))  # which uvicorn reads unless it is told
    return max(1, next((int(number) for number in given if number.isdigit()), 1))


mlflow.models.set_model(ServedModel())
