"""The registered model behind MLflow's real server answers what evaluate found, and refuses in one line."""

import base64
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from cxr.manifest import Manifest


@pytest.fixture(scope="module")
def address(workflow):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(Path(sys.executable).parent / "mlflow"), "models", "serve", "-m", "models:/cxr-pneumonia@champion"]
    words += ["--env-manager", "local", "--port", str(port)]
    environment = {**workflow.environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    log = (workflow.folder / "serve.log").open("w")
    server = subprocess.Popen(words, cwd=workflow.folder, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(240):
            try:
                if requests.get(f"http://127.0.0.1:{port}/ping", timeout=1).ok:
                    break
            except requests.RequestException:
                assert server.poll() is None, (workflow.folder / "serve.log").read_text()
            time.sleep(0.25)
        else:
            raise AssertionError((workflow.folder / "serve.log").read_text())
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def ask(address: str, pictures: list[bytes], **body) -> requests.Response:
    rows = [[base64.b64encode(picture).decode()] for picture in pictures]
    body = body or {"dataframe_split": {"columns": ["image"], "data": rows}}
    return requests.post(address, json=body, timeout=60)


def test_every_test_image_gets_the_answer_of_evaluate(workflow, address):
    version = workflow.client.get_model_version_by_alias("cxr-pneumonia", "champion")
    evaluated = workflow.client.get_run(version.tags["cxr.evaluate_run_id"])
    predictions = json.loads(workflow.artifact(evaluated, "evaluation/predictions.json").read_text())
    split = workflow.client.get_run(version.tags["cxr.split_run_id"])
    root = Manifest.load(workflow.artifact(split, "split")).root
    pictures = [(root / p["path"]).read_bytes() for p in predictions]
    together = ask(address, pictures)
    assert together.status_code == 200, together.text
    alone = [ask(address, [picture]).json()["predictions"][0] for picture in pictures[:5]]
    for answers in (together.json()["predictions"], alone):
        for found, wanted in zip(answers, predictions, strict=False):
            assert found["label"] == wanted["prediction"]
            for name, value in wanted["probabilities"].items():
                assert found[f"probability_{name}"] == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            {"dataframe_split": {"columns": ["image"], "data": [["bm8gcGljdHVyZQ=="]]}},
            "row 0: neither a picture nor",
        ),
        ({"dataframe_records": [{"image": ""}]}, "row 0: the file is empty"),
    ],
)
def test_a_bad_request_gets_400_and_one_line(address, body, words):
    response = ask(address, [], **body)
    assert response.status_code == 400
    assert response.json()["message"].startswith(words)
    assert "\n" not in response.json()["message"]
    assert "Traceback" not in response.text


def test_a_request_without_pictures_gets_400(address):
    response = ask(address, [], dataframe_split={"columns": ["picture"], "data": [["AAAA"]]})
    assert response.status_code == 400
    assert "image" in response.json()["message"]
    assert "Traceback" not in response.text


def test_records_and_inputs_are_taken_too(workflow, address):
    run = workflow.runs("evaluate")[-1]
    first = json.loads(workflow.artifact(run, "evaluation/predictions.json").read_text())[0]
    split = Manifest.load(workflow.artifact(workflow.runs("prepare_split")[0], "split"))
    text = base64.b64encode((split.root / first["path"]).read_bytes()).decode()
    for body in (
        {"dataframe_records": [{"image": text}]}, {"inputs": {"image": [text]}}, {"instances": [{"image": text}]},
    ):  # fmt: skip
        response = ask(address, [], **body)
        assert response.status_code == 200, (body.keys(), response.text)
        assert response.json()["predictions"][0]["label"] == first["prediction"]
