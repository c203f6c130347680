"""The registered model behind MLflow's server: same answers as evaluate, and one line for a bad request."""

import base64
import json
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests

from cxr.datasets import phantom
from cxr.datasets.manifest import Manifest
from cxr.serving.service import columns
from tests.helpers import free_port, wait_for


@pytest.fixture(scope="module")
def address(workflow):
    port = free_port()
    words = [str(Path(sys.executable).parent / "mlflow"), "models", "serve", "-m", "models:/cxr-pneumonia/1"]
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
        server.terminate()  # SIGTERM, as a supervisor sends it to the command; what it started ends in order as well
        server.wait(30)
        wait_for(lambda: "Finished server process" in (workflow.folder / "serve.log").read_text())
        log.close()


def ask(address: str, images: list[bytes], **body) -> requests.Response:
    rows = [[base64.b64encode(image).decode()] for image in images]
    body = body or {"dataframe_split": {"columns": ["image"], "data": rows}}
    return requests.post(address, json=body, timeout=60)


def test_every_test_image_gets_the_same_answer_as_in_evaluate(workflow, address):
    version = workflow.client.get_model_version("cxr-pneumonia", "1")
    evaluated = workflow.client.get_run(version.tags["cxr.evaluate_run_id"])
    predictions = json.loads(workflow.artifact(evaluated, "evaluation/predictions.json").read_text())
    split = workflow.client.get_run(version.tags["cxr.split_run_id"])
    root = Manifest.load(workflow.artifact(split, "split")).root
    images = [(root / p["path"]).read_bytes() for p in predictions]
    assert len(images) <= 64
    together = ask(address, images)
    assert together.status_code == 200, together.text
    alone = [ask(address, [image]).json()["predictions"][0] for image in images[:5]]
    for answers in (together.json()["predictions"], alone):
        for answer, prediction in zip(answers, predictions, strict=False):
            pneumonia = max(("bacteria", "virus"), key=prediction["probabilities"].get)
            wanted = {None: prediction["prediction"], "normal": "normal", "pneumonia": pneumonia}
            assert answer["label"] == wanted[answer["decision"]]
            for name, value in prediction["probabilities"].items():
                assert answer[f"probability_{name}"] == pytest.approx(value, abs=1e-5)


ROOT = Path(__file__).resolve().parents[2]
BAD = base64.b64encode(b"no picture").decode()
PATIENT = "patient 4711"
JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (json.dumps({"dataframe_split": {"columns": ["image"], "data": [[BAD]]}}), JSON, "row 0: not an image in"),
        (json.dumps({"dataframe_records": [{"image": ""}]}), JSON, "row 0: the file is empty"),
        (json.dumps({"dataframe_records": [{"image": None}]}), JSON, "row 0: no image"),
        (json.dumps({"dataframe_records": [{"image": BAD}] * 65}), JSON, "65 images in one request; at most 64"),
        (
            json.dumps({"dataframe_split": {"columns": [PATIENT], "data": [["AAAA"]]}}),
            JSON,
            "expected a column 'image' with",
        ),
        (
            json.dumps({"dataframe_records": [{"image": BAD}], "params": {"operating_point": "x"}}),
            JSON,
            "unknown operating_",
        ),
        (json.dumps({"dataframe_records": [{"image": BAD}], "params": {"strict": PATIENT}}), JSON, "params: strict"),
        (json.dumps({"instances": [[[PATIENT]]]}), JSON, ""),
        (json.dumps([PATIENT]), JSON, "no table of images"),
        (json.dumps({"dataframe_split": PATIENT}), JSON, "no table of images"),
        (json.dumps(PATIENT), JSON, "no table of images"),
        ('{"dataframe_split": {"columns": ["' + PATIENT, JSON, "no table of images"),
        (b"\xff\xfe" + PATIENT.encode(), JSON, "no table of images"),
        ("[" * 100_000, JSON, "far more values than 64 images"),
        (f"image\n{BAD}\n", "text/csv", "row 0: not an image"),
        (f"{PATIENT}\n1\n", "text/csv", "expected a column 'image' with"),
        (b"\xff\xfe" + PATIENT.encode(), "text/csv", "no table of images"),
    ],
)
def test_a_bad_request_gets_400_and_one_line(address, body, kind, words):
    response = requests.post(address, data=body, headers={"Content-Type": kind}, timeout=60)
    assert response.status_code == 400, response.text
    assert response.json()["message"].startswith(words)
    assert "\n" not in response.json()["message"] and "Traceback" not in response.text
    assert PATIENT not in response.text and BAD not in response.text


@pytest.mark.parametrize("kind", [None, "text/html", PATIENT])
def test_another_content_type_gets_415(address, kind):
    response = requests.post(address, data=b"{}", headers={"Content-Type": kind} if kind else {}, timeout=60)
    assert response.status_code == 415 and PATIENT not in response.text
    assert "application/json or text/csv" in response.json()["message"]


def test_parameters_and_the_version(workflow, address):
    version = workflow.client.get_model_version("cxr-pneumonia", "1")
    rows = [{"image": base64.b64encode(phantom.example("virus")).decode()}, {"image": BAD}]
    params = {"operating_point": "sensitive", "heatmap": True, "strict": False}
    response = requests.post(address, json={"dataframe_records": rows, "params": params}, timeout=60)
    good, bad = response.json()["predictions"]
    assert list(good) == list(bad) == columns(("normal", "bacteria", "virus"), "pneumonia")
    assert good["model_version"] == str(version.version) and good["operating_point"] == "sensitive"
    assert base64.b64decode(good["heatmap"]).startswith(b"\x89PNG")
    assert bad["status"] == "error" and bad["label"] is None and bad["probability_pneumonia"] is None


def test_a_picture_as_it_is_gets_the_answer_of_its_row_in_json(address):
    """And what serves it is told by the metrics: name and version in the registry."""
    data = phantom.example("virus")
    for name, value in (("Content-Type", "image/jpeg"), ("Content-Type", "application/octet-stream")):
        raw = requests.post(f"{address}?strict=false", data=data, headers={name: value}, timeout=60)
        assert raw.status_code == 200 and raw.json() == ask(address, [data]).json()
    metrics = requests.get(address.replace("invocations", "metrics"), timeout=60).text
    assert 'cxr_model_info{name="cxr-pneumonia",version="1"} 1.0' in metrics.splitlines()


def test_other_formats_of_a_request_are_accepted(workflow, address):
    run = workflow.runs("evaluate")[-1]
    first = json.loads(workflow.artifact(run, "evaluation/predictions.json").read_text())[0]
    split = Manifest.load(workflow.artifact(workflow.runs("prepare_split")[0], "split"))
    text = base64.b64encode((split.root / first["path"]).read_bytes()).decode()
    csv = requests.post(address, data=f"image\n{text}\n", headers={"Content-Type": "text/csv"}, timeout=60)
    assert csv.json()["predictions"][0]["label"] == first["prediction"]
    for body in (
        {"dataframe_records": [{"image": text}]},
        {"inputs": {"image": [text]}},
        {"inputs": [text]},
        {"inputs": [{"image": text}]},
        {"instances": [text]},
        {"instances": [{"image": text}]},
    ):
        response = ask(address, [], **body)
        assert response.status_code == 200, (body.keys(), response.text)
        assert response.json()["predictions"][0]["label"] == first["prediction"]


def test_the_examples_of_the_readme_work(address, tmp_path):
    """Run the lines that send something and the Python code of the chapter on serving, with another port."""
    chapter = (ROOT / "README.md").read_text().split("## Serving")[1].split("\n## ")[0]
    port = address.split(":")[2].split("/")[0]
    shell = chapter.split("```bash")[1].split("```")[0].replace("\\\n", " ")
    curls = [line for line in shell.splitlines() if "curl" in line]
    python = chapter.split("```python")[1].split("```")[0]
    assert curls and len(python.strip().splitlines()) <= 12
    (tmp_path / "xrays").mkdir()
    for number, label in enumerate(("normal", "virus")):
        (tmp_path / f"xrays/{number}.jpeg").write_bytes(phantom.example(label))
    (tmp_path / "xray.jpeg").write_bytes(phantom.example("bacteria"))
    shells = [["bash", "-c", curl.replace("5001", port)] for curl in curls]
    for command in (*shells, [sys.executable, "-c", python.replace("5001", port)]):
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert process.returncode == 0, process.stderr
        if command[0] == "bash":
            assert list(json.loads(process.stdout)["predictions"][0]) == columns(
                ("normal", "bacteria", "virus"), "pneumonia"
            )
        else:
            assert [line.split()[:2] for line in process.stdout.splitlines()] in [
                [["0.jpeg", a], ["1.jpeg", b]] for a in ("ok", "refer") for b in ("ok", "refer")
            ]


def test_the_registered_model_holds_no_pickle(workflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workflow.uri)
    mlflow.set_tracking_uri(workflow.uri)
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri="models:/cxr-pneumonia/1"))
    names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if "__pycache__" not in file.parts]
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib"))]
    assert {"artifacts/service/model.onnx", "code/cxr/serving/mlflow_model.py", "input_example.json"} <= set(names)
    requirements = (folder / "requirements.txt").read_text()
    assert "mlflow-skinny==" in requirements and "torch" not in requirements
    assert "mlflow==" not in requirements


def test_the_server_survives_hundreds_of_damaged_bodies(address):
    """Request bodies with a few bytes changed get an answer or an error, and the server keeps running."""
    text = base64.b64encode(phantom.example("normal")).decode()
    bodies = [
        json.dumps({"dataframe_split": {"columns": ["image"], "data": [[text]]}, "params": {"strict": False}}),
        json.dumps({"dataframe_records": [{"image": text}, {"image": BAD}], "params": {"heatmap": True}}),
        json.dumps({"inputs": {"image": [text]}}),
        json.dumps({"instances": [{"image": text}]}),
        f"image\n{text}\n",
    ]
    rng, statuses = np.random.default_rng(0), set()
    alphabet = b'{}[]",:\\ 0e-.nutf\xff\x00\n'
    for number in range(400):
        body = bytearray(bodies[number % 5].encode())
        for _ in range(rng.integers(1, 5)):
            # The structure is at both ends of the body.
            place = int(rng.integers(0, 70)) * (1 if rng.random() < 0.5 else -1) % len(body)
            body[place : place + int(rng.integers(0, 3))] = bytes([alphabet[rng.integers(len(alphabet))]])
        kind = "text/csv" if number % 5 == 4 else JSON
        response = requests.post(address, data=bytes(body), headers={"Content-Type": kind}, timeout=60)
        assert response.status_code in (200, 400), (bytes(body[:90]), response.text[:300])
        assert "Traceback" not in response.text and text[:200] not in response.text
        if response.status_code == 400:
            assert "\n" not in response.json()["message"] and len(response.json()["message"]) < 400
        statuses.add(response.status_code)
    assert statuses == {200, 400}
    assert ask(address, [phantom.example("normal")]).status_code == 200
