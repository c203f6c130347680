"""What MLflow is told of the model: its parameters, its refusals in one line, and a server that echoes nothing."""

import json
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from cxr.serving import mlflow_model as module
from cxr.serving.mlflow_model import Refused, ServedModel


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


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (Refused("row 3: the file is empty (0 bytes)"), 400, "row 3: the file is empty"),
        (
            MlflowException("Failed to predict data '4711'. Model is missing inputs ['image']"),
            400,
            "expected a column 'image'",
        ),
        (MlflowException("Ensure that input is valid JSON. Input: 4711"), 400, "no table of images in application"),
        (ValueError("4711"), 400, "no table of images"),
    ],
)
def test_the_server_tells_no_secrets(error, status, words):
    def invocations(*_):
        raise error

    server = ModuleType("server")
    server.invocations, server.InvocationsResponse = invocations, lambda *told: told
    module._install_error_handler(server)
    once = server.invocations
    module._install_error_handler(server)
    assert server.invocations is once
    body, code, _ = server.invocations(b"4711", "application/json; charset=utf-8", None, None)
    assert code == status and json.loads(body)["message"].startswith(words)
    assert "4711" not in body and "\\n" not in body
    assert server.invocations(b"", None, None, None)[1] == 415
    assert server.invocations(b"", "text/html", None, None)[1] == 415
