"""The model that MLflow serves: bytes of pictures in, one row of answers for each out.

Logged as code (MLflow's models-from-code) with the folder that `cxr.packaging.package` writes as its only artifact;
nothing is unpickled. The answers come from `cxr.serving.service`; this module adapts them to MLflow.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, Schema

from cxr.common.hardware import cores
from cxr.errors import ImageError
from cxr.serving.request import COLUMN
from cxr.serving.service import ARTIFACT, Service

_SERVER = "mlflow.pyfunc.scoring_server"
_SEND = f'send {{"dataframe_records": [{{"{COLUMN}": BASE64}}]}}'
_KINDS = ("application/json", "text/csv")


class Refused(MlflowException):
    """A request that is answered with status 400 and one line.

    MLflow puts the whole input in front of the message of an exception that it passes on; `line` stays as it was.
    """

    def __init__(self, line: str):
        self.line = line
        super().__init__(line, error_code=INVALID_PARAMETER_VALUE)


class ServedModel(PythonModel):
    """Answers one row for each image in the column `image` (see `cxr.serving.service.columns`)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the network and run it once, so that the first caller does not wait for it."""
        folder = Path(context.artifacts[ARTIFACT])
        self.service = Service(folder, threads=max(1, cores() // _workers()), version=_version(folder))
        if _SERVER in sys.modules:
            _install_error_handler(sys.modules[_SERVER])

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
            )
        except ImageError as error:
            raise Refused(str(error)) from None


def _column(model_input: Any) -> list[Any]:
    if isinstance(model_input, dict):
        model_input = pd.DataFrame({name: list(np.atleast_1d(cells)) for name, cells in model_input.items()})
    if isinstance(model_input, pd.DataFrame) and COLUMN in model_input.columns:
        return list(model_input[COLUMN])
    raise Refused(f"expected a column {COLUMN!r} with images; {_SEND}")


def _version(folder: Path) -> str:
    """The version in the registry, which MLflow writes beside a model that it downloads from there."""
    file = folder.parents[1] / "registered_model_meta"
    if not file.is_file():
        return "not registered"
    words = dict(line.split(": ", 1) for line in file.read_text(encoding="utf-8").splitlines() if ": " in line)
    return words.get("model_version", "not registered").strip().strip("'\"")


def _workers() -> int:
    """Number of processes of the server, which share the cores."""
    words = sys.argv
    for flag in ("--workers", "-w"):
        if flag in words[:-1] and words[words.index(flag) + 1].isdigit():
            return max(1, int(words[words.index(flag) + 1]))
    return 1


def _install_error_handler(server: Any) -> None:
    """Make the server that loads this model answer bad requests in one line.

    By itself it echoes a body that it cannot parse, sends a stack trace for most errors in it, and status 500 for a
    missing content type.
    """
    if not getattr(server.invocations, "one_line_errors", False):  # this file may be loaded twice
        server.invocations = _Invocations(server.invocations, server.InvocationsResponse)


class _Invocations:
    """MLflow's handler of a request body, with errors of one line."""

    one_line_errors = True

    def __init__(self, invocations: Callable[..., Any], response: Callable[..., Any]):
        self.invocations, self.response = invocations, response

    def __call__(self, data: Any, content_type: str | None, model: Any, _: Any) -> Any:
        kind = (content_type or "").split(";")[0].strip().lower()
        if kind not in _KINDS:
            return self._refusal(415, f"the content type must be one of {', '.join(_KINDS)}")
        try:
            # As text, cells arrive as they were sent. As bytes, one cell that is not base64 would fail all rows.
            return self.invocations(data, content_type, model, Schema([ColSpec("string", COLUMN)]))
        except Refused as error:
            return self._refusal(400, error.line)
        except MlflowException as error:
            missing = "missing inputs" in str(error.message)
            problem = f"expected a column {COLUMN!r} with images" if missing else f"no table of images in {kind}"
            return self._refusal(400, f"{problem}; {_SEND}")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError):
            # A body that MLflow's own parsers fail on; ours raise `Refused`.
            return self._refusal(400, f"no table of images in {kind}; {_SEND}")

    def _refusal(self, status: int, line: str) -> Any:
        code = "INVALID_PARAMETER_VALUE" if status == 400 else "BAD_REQUEST"
        return self.response(json.dumps({"error_code": code, "message": line}), status, "application/json")


mlflow.models.set_model(ServedModel())
