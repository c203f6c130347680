"""What MLflow is told of the model: its parameters, its refusals in one line, its name and version."""

from types import SimpleNamespace

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from cxr.serving import mlflow_model as module
from cxr.serving.mlflow_model import ServedModel


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


def test_name_and_version_are_read_from_beside_the_model(tmp_path):
    folder = tmp_path / "artifacts/service"
    folder.mkdir(parents=True)
    assert module._registered(folder) == ("not registered", "not registered")
    (tmp_path / "registered_model_meta").write_text("model_name: cxr-pneumonia\nmodel_version: '12'\n")
    assert module._registered(folder) == ("cxr-pneumonia", "12")


@pytest.mark.parametrize(
    ("words", "workers"), [(["serve"], 1), (["--workers", "4"], 4), (["-w", "2"], 2), (["-w"], 1), (["-w", "x"], 1)]
)
def test_workers_share_the_cores(monkeypatch, words, workers):
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert module._workers() == workers
    monkeypatch.setenv("WEB_CONCURRENCY", "3")  # which uvicorn reads if it is not told otherwise
    assert module._workers() == (3 if workers == 1 else workers)
