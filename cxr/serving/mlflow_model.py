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

    MLflow writes the whole input in front of the message of an exception that it passes on: what is said here cannot
    be changed any more.
    """

    def __init__(self, line: str):
        self._line = line
        super().__init__(line, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        return self._line

    @message.setter
    def message(self, longer: str) -> None:
        pass


class ServedModel(PythonModel):
    """Answers one row for each picture in the column `image` (see `cxr.serving.service.columns`)."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the network and answer once, so that the first caller does not wait for it."""
        folder = Path(context.artifacts[ARTIFACT])
        self.service = Service(folder, threads=max(1, cores() // _workers()), version=_version(folder))
        if _SERVER in sys.modules:
            _answer_plainly(sys.modules[_SERVER])

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None):
        """A table with the answers, in the order of the rows; see `Service.answer` for `params`."""
        given = params or {}
        try:
            return self.service.answer(
                _column(model_input), point=str(given.get("operating_point") or ""),
                with_heat=bool(given.get("heatmap", False)), strict=bool(given.get("strict", True)),
            )  # fmt: skip
        except ImageError as error:
            raise Refused(str(error)) from None


def _column(model_input: Any) -> list[Any]:
    if isinstance(model_input, dict):
        model_input = pd.DataFrame({name: list(np.atleast_1d(cells)) for name, cells in model_input.items()})
    if isinstance(model_input, pd.DataFrame) and COLUMN in model_input.columns:
        return list(model_input[COLUMN])
    raise Refused(f"a column {COLUMN!r} with pictures is needed; {_SEND}")


def _version(folder: Path) -> str:
    """The version in the registry; MLflow leaves it beside a model that it has fetched from there."""
    file = folder.parents[1] / "registered_model_meta"
    if not file.is_file():
        return "not registered"
    words = dict(line.split(": ", 1) for line in file.read_text(encoding="utf-8").splitlines() if ": " in line)
    return words.get("model_version", "not registered").strip().strip("'\"")


def _workers() -> int:
    """How many processes the server has, each of them with a share of the cores."""
    words = sys.argv
    for flag in ("--workers", "-w"):
        if flag in words[:-1] and words[words.index(flag) + 1].isdigit():
            return max(1, int(words[words.index(flag) + 1]))
    return 1


def _answer_plainly(server: Any) -> None:
    """Let the server that loads this model answer bad requests in one line.

    As it comes it sends back the whole of a body that it cannot parse, a stack trace for most errors in it, and status
    500 where the content type is missing.
    """
    if not hasattr(server.invocations, "plain"):
        server.invocations = _plain(server.invocations, server.InvocationsResponse)


def _plain(invocations: Callable[..., Any], response: Callable[..., Any]) -> Callable[..., Any]:
    def answered(data: Any, content_type: str | None, model: Any, _: Any) -> Any:
        kind = (content_type or "").split(";")[0].strip().lower()
        if kind not in _KINDS:
            return _refusal(response, 415, f"the content type must be one of {', '.join(_KINDS)}")
        try:
            # As text, cells come as they were sent. As bytes, one cell that is no base64 would fail all rows.
            return invocations(data, content_type, model, Schema([ColSpec("string", COLUMN)]))
        except Refused as error:
            return _refusal(response, 400, error.message)
        except MlflowException as error:
            lacking = "missing inputs" in str(error.message)
            words = f"a column {COLUMN!r} with pictures is needed" if lacking else f"no table of pictures in {kind}"
            return _refusal(response, 400, f"{words}; {_SEND}")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError):
            # A body that MLflow's own parsers fall over; ours refuse what they cannot read.
            return _refusal(response, 400, f"no table of pictures in {kind}; {_SEND}")

    answered.plain = True
    return answered


def _refusal(response: Callable[..., Any], status: int, line: str) -> Any:
    code = "INVALID_PARAMETER_VALUE" if status == 400 else "BAD_REQUEST"
    return response(json.dumps({"error_code": code, "message": line}), status, "application/json")


mlflow.models.set_model(ServedModel())
