"""The model that MLflow serves: bytes of pictures in, labels and probabilities out.

Logged as code (MLflow's models-from-code), with a bundle as its only artifact; nothing is unpickled. It goes the same
way as evaluation: `cxr.images` and `cxr.predictor`.
"""

import base64
import binascii
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel, PythonModelContext

from cxr import bundle
from cxr.errors import ImageError
from cxr.metrics import pneumonia_probability
from cxr.predictor import Predictor

COLUMN = "image"
BATCH = 32  # pictures that go through the network at once
_MAGIC = (b"\xff\xd8", b"\x89PNG", b"II*\x00", b"MM\x00*", b"BM")  # JPEG, PNG, TIFF twice, BMP


class Refused(MlflowException):
    """A request that is answered with status 400 and one line.

    MLflow's server writes the whole input in front of the message of an exception that it passes on: what is said
    here cannot be changed any more.
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
    """Answers one row for each picture in the column `image`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle and answer once, so that the first caller does not wait for it."""
        self.predictor = Predictor(bundle.load(context.artifacts["bundle"]))
        size = self.predictor.spec.size
        self.predictor.probabilities(np.zeros((1, size, size), np.uint8))

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None):
        """A table of `label` and probabilities, in the order of the rows; a bad picture refuses the request."""
        rasters = [self._raster(row, value) for row, value in enumerate(_column(model_input))]
        parts = [np.stack(rasters[i : i + BATCH]) for i in range(0, len(rasters), BATCH)]
        classes = self.predictor.classes
        found = [self.predictor.probabilities(part) for part in parts] or [np.empty((0, len(classes)))]
        return answer(np.concatenate(found), classes)

    def _raster(self, row: int, value: Any) -> np.ndarray:
        try:
            return self.predictor.raster(picture_bytes(value))
        except ImageError as error:
            raise Refused(f"row {row}: {error}") from None


def answer(probabilities: np.ndarray, classes: tuple[str, ...]) -> pd.DataFrame:
    """The table that a caller gets for probabilities of shape (n, C)."""
    table = {"label": [classes[i] for i in probabilities.argmax(1)]}
    table |= {f"probability_{name}": probabilities[:, i] for i, name in enumerate(classes)}
    table["probability_pneumonia"] = pneumonia_probability(probabilities)
    return pd.DataFrame(table)


def picture_bytes(value: Any) -> bytes:
    """The bytes of a picture, however MLflow hands them over: bytes, base64 text, or base64 text as bytes."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        raise ImageError("no picture; send its bytes in base64")
    if isinstance(value, bytes | bytearray | np.bytes_):
        data = bytes(value)
        if not data or data.startswith(_MAGIC):
            return data
        try:
            value = data.decode("ascii")
        except UnicodeDecodeError:
            return data  # no base64; the decoder says what is wrong with it
    if not isinstance(value, str):
        raise ImageError(f"a {type(value).__name__} is no picture; send its bytes in base64")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("neither a picture nor standard base64 (no data: address, no URL-safe alphabet)") from None


def _column(model_input: Any) -> list[Any]:
    if isinstance(model_input, pd.DataFrame) and COLUMN in model_input.columns:
        return list(model_input[COLUMN])
    seen = ", ".join(map(str, model_input.columns)) if isinstance(model_input, pd.DataFrame) else "no table"
    raise Refused(f"a column {COLUMN!r} with pictures is needed; seen: {seen[:200] or 'no column'}")


mlflow.models.set_model(ServedModel())
