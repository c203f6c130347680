"""What MLflow is told of the model: its parameters, its refusals in one line, and a server that echoes nothing."""

import json
import re
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from cxr.errors import CxrError
from cxr.serving import mlflow_model as module
from cxr.serving.mlflow_model import Refused, ServedModel
from cxr.serving.request import Limits


@pytest.fixture(scope="module")
def model(served):
    made = ServedModel()
    made.load_context(SimpleNamespace(artifacts={"service": str(served.folder)}))
    return made


@pytest.fixture(scope="module")
def picture(served) -> bytes:
    return served.manifest.split("val").files()[0].read_bytes()


def test_parameters_reach_the_service(model, picture):
    table = pd.DataFrame({"image": [picture, b"no picture"]})
    told = model.predict(None, table, {"operating_point": "youden", "heatmap": True, "strict": False})
    assert list(told["operating_point"]) == ["youden"] * 2 and told["heatmap"][0] and told["status"][1] == "error"
    assert model.predict(None, table[:1], None)["operating_point"][0] == "argmax"


@pytest.mark.parametrize(
    ("table", "params", "words"),
    [
        (pd.DataFrame({"image": [b"no picture"]}), None, "row 0: neither an image nor"),
        (pd.DataFrame({"img": [b""]}), None, "expected a column 'image' with images"),
        (pd.DataFrame({"image": []}), {"operating_point": "best"}, "unknown operating_point; expected one of argmax"),
    ],
)
def test_refusals_have_status_400_and_stay_one_line(model, table, params, words):
    with pytest.raises(MlflowException, match=words) as caught:
        model.predict(None, table, params)
    assert caught.value.get_http_status_code() == 400
    message = caught.value.message
    caught.value.message = f"Failed to predict data '{table}'"  # as MLflow's server does
    assert caught.value.line == message and "\n" not in message


def test_the_version_is_read_from_beside_the_model(tmp_path):
    folder = tmp_path / "artifacts/service"
    folder.mkdir(parents=True)
    assert module._version(folder) == "not registered"
    (tmp_path / "registered_model_meta").write_text("model_name: cxr-pneumonia\nmodel_version: '12'\n")
    assert module._version(folder) == "12"


@pytest.mark.parametrize(
    ("words", "workers"), [(["serve"], 1), (["--workers", "4"], 4), (["-w", "2"], 2), (["-w"], 1), (["-w", "x"], 1)]
)
def test_workers_share_the_cores(monkeypatch, words, workers):
    monkeypatch.setattr("sys.argv", words)
    assert module._workers() == workers


class Model:
    """What MLflow's server asks: it answers with the cells, or raises what it is told to."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def predict(self, data, params):
        if self.error:
            raise self.error
        return {"cells": data["image"].tolist(), "params": params}


def server(error: Exception | None = None) -> ModuleType:
    """A stand-in for MLflow's module, which fails to write answers if it is told to."""

    def write(answers, text):
        if error:
            raise error
        json.dump(answers, text)

    made = ModuleType("server")
    made.invocations, made.InvocationsResponse, made.predictions_to_json = None, lambda *told: told, write
    made._async_catch_mlflow_exception = lambda endpoint: endpoint
    module._prepare(made, Limits(1000, 1000, 3, 1000))
    once = made.invocations
    module._prepare(made, Limits(1000, 1000, 3, 1000))
    assert made.invocations is once
    return made


GOOD = json.dumps({"inputs": ["4711"]}).encode()


def told(server, model, data=GOOD, kind="application/json; charset=utf-8") -> tuple[int, str]:
    text, status, _ = server.invocations(data, kind, model, None)
    assert status == 200 or ("4711" not in text and "\\n" not in text)
    return status, text if status == 200 else json.loads(text)["message"]


def test_a_request_in_order_reaches_the_model():
    status, text = told(server(), Model(), b'{"inputs": ["a", 5, null], "params": {"strict": true}}')
    assert status == 200 and json.loads(text) == {"cells": ["a", 5, None], "params": {"strict": True}}


def test_what_cannot_be_answered_is_the_callers_in_one_line(caplog):
    assert told(server(), Model(Refused("row 3: the file is empty"))) == (400, "row 3: the file is empty")
    assert told(server(), Model(), b"4711")[1].startswith("no table of images in application/json")
    assert told(server(), Model(), b'{"inputs": [1, 2, 3, 4]}') == (
        400,
        "4 images in one request; at most 3 are accepted",
    )
    assert not caplog.records


@pytest.mark.parametrize(
    "error", [ValueError("4711"), RuntimeError("4711"), CxrError("4711"), MemoryError(), MlflowException("4711")]
)
@pytest.mark.parametrize("where", ["model", "answer"])
def test_a_fault_of_ours_is_logged_and_answered_with_500(error, where, caplog):
    status, line = told(server(error), Model()) if where == "answer" else told(server(), Model(error))
    [record] = caplog.records
    assert status == 500 and record.exc_info[1] is error
    assert re.fullmatch(r"internal error, reference [0-9a-f]{8} in the log of the server", line)
    assert line.split()[3] in record.getMessage()


@pytest.mark.parametrize(
    "kind",
    [None, "", "text/html", "4711", "application/json; 4711=x", "application/json; charset=4711", "text/csv; charset=x"],  # noqa: E501
)  # fmt: skip
def test_other_content_types_are_refused_without_repeating_them(kind):
    status, line = told(server(), Model(), kind=kind)
    assert status == 415 and line == "the content type must be one of application/json, text/csv, in UTF-8"


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON;charset=UTF-8", 'application/json; charset="utf-8";']
)
def test_utf_8_may_be_named(kind):
    assert told(server(), Model(), kind=kind)[0] == 200
