"""The model that MLflow serves: bytes of pictures in, one row of answers for each out.

Logged as code (MLflow's models-from-code) with the folder that `cxr.packaging.package` writes as its only artifact;
nothing is unpickled. The answers come from `cxr.serving.service`; this module adapts them to MLflow.
"""

import io
import json
import logging
import secrets
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from cxr.common.hardware import cores
from cxr.errors import BusyError, ImageError
from cxr.serving import body
from cxr.serving.endpoint import guarded
from cxr.serving.request import COLUMN, Limits
from cxr.serving.service import ARTIFACT, Service

_SERVER = "mlflow.pyfunc.scoring_server"
_CODES = {400: "INVALID_PARAMETER_VALUE", 415: "BAD_REQUEST", 500: "INTERNAL_ERROR", 503: "TEMPORARILY_UNAVAILABLE"}
log = logging.getLogger("cxr.serving")  # not __name__, which MLflow chooses


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
        self.service = Service(folder, threads=max(1, cores() // _workers()), version=_version(folder))
        if _SERVER in sys.modules:
            _prepare(sys.modules[_SERVER], self.service.limits)

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
        except BusyError as error:
            raise Refused(str(error), 503) from None


def _column(model_input: Any) -> list[Any]:
    if isinstance(model_input, dict):
        model_input = pd.DataFrame({name: list(np.atleast_1d(cells)) for name, cells in model_input.items()})
    if isinstance(model_input, pd.DataFrame) and COLUMN in model_input.columns:
        return list(model_input[COLUMN])
    raise Refused(body.NO_COLUMN)


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


def _prepare(server: Any, limits: Limits) -> None:
    """Make MLflow's server, which loads this model before it builds its application, a server that can face strangers.

    By itself it echoes a body that it cannot parse, answers faults of the model with status 400 and a stack trace that
    it does not log, takes bodies of any length, and logs a stack trace for each client that goes away.
    """
    if getattr(server.invocations, "prepared", False):  # this file may be loaded twice
        return
    server.invocations = _Invocations(server, limits)
    catching = server._async_catch_mlflow_exception
    server._async_catch_mlflow_exception = lambda endpoint: guarded(catching(endpoint), limits.max_request_bytes)


class _Invocations:
    """The handler of a request body: refusals are one line, faults are logged and answered with status 500."""

    prepared = True

    def __init__(self, server: Any, limits: Limits):
        self.server, self.limits = server, limits

    def __call__(self, data: bytes, content_type: str | None, model: Any, _: Any) -> Any:
        kind, *options = [part.strip() for part in (content_type or "").lower().split(";")]
        if kind not in body.KINDS or any(option.replace('"', "") not in ("", "charset=utf-8") for option in options):
            return self._error(415, f"the content type must be one of {', '.join(body.KINDS)}, in UTF-8")
        try:
            cells, params = body.parse(data, kind, self.limits.max_images)
            self.limits.check(len(cells))
            answers = model.predict(pd.DataFrame({COLUMN: pd.Series(cells, dtype=object)}), params=params)
            text = io.StringIO()
            self.server.predictions_to_json(answers, text)
        except ImageError as error:
            return self._error(400, str(error))
        except Exception as error:
            if hasattr(error, "line"):  # `Refused`; not caught by its name, which differs if this file is loaded twice
                return self._error(getattr(error, "status", 400), error.line)
            reference = secrets.token_hex(4)
            log.error("internal error, reference %s", reference, exc_info=error)
            return self._error(500, f"internal error, reference {reference} in the log of the server")
        return self.server.InvocationsResponse(text.getvalue(), 200, body.JSON)

    def _error(self, status: int, line: str) -> Any:
        told = {"error_code": _CODES[status], "message": line}
        return self.server.InvocationsResponse(json.dumps(told), status, body.JSON)


mlflow.models.set_model(ServedModel())
