"""Classes of the user's own go through every step, under their own names, to what is served."""

import json

import mlflow
import numpy as np
import pytest
import yaml
from fastapi.testclient import TestClient

from cxr.common.hardware import cores
from cxr.datasets import phantom
from cxr.datasets.manifest import Manifest
from cxr.demo.app import application
from cxr.models import bundle
from cxr.serving import batch
from cxr.serving.service import Service
from steps.registry.model_files import service_folder
from tests.steps.conftest import PLAIN, SMALL, parameters

pytestmark = pytest.mark.xdist_group("own classes")  # not that of the `workflow` of other files
NAME = "cxr-tuberculosis"
COLUMNS = ["label", "probability_healthy", "probability_tuberculosis", "operating_point", "decision", "status",
           "reasons", "heatmap", "model_version"]  # fmt: skip


@pytest.fixture(scope="module")
def workflow(new_workflow):
    """An empty store: elsewhere, steps that are not given a run would take these, the newest ones."""
    return new_workflow(run=False)


@pytest.fixture(scope="module")
def xrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xrays")
    for number in range(36):
        kind, name = (("normal", "Healthy"), ("bacteria", "tuberculosis"))[number % 2]
        path = folder / ("test" if number < 8 else "train") / name / f"{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(phantom.example(kind, number))
    return folder


def test_from_folders_to_answers(workflow, in_process, xrays, tmp_path):
    data = {"data__classes": "[healthy, tuberculosis]", "data__finding": "tuberculosis"}
    small, plain = parameters(*SMALL), parameters(*PLAIN)
    assert in_process("prepare_split", data_path=xrays, **data) == 0
    split = workflow.runs("prepare_split")[0]
    manifest = Manifest.load(workflow.artifact(split, "split"))
    assert (manifest.classes, manifest.finding) == (("healthy", "tuberculosis"), "tuberculosis")
    assert split.data.metrics["images_test_tuberculosis"] == 4
    model = {name: value for name, value in small.items() if name.startswith(("model", "precision"))}
    assert in_process("train", split_run_id=split.info.run_id, epochs=1, **model) == 0
    trained = workflow.runs("train")[0]
    assert bundle.load(workflow.artifact(trained, "bundle")).finding == "tuberculosis"
    gate = {name: value for name, value in small.items() if name.startswith("registry")}
    gate |= {"registry__gate__metric": "auc_finding", "registry__gate__minimum__auc_finding": 0.0}
    settings = {"registry__name": NAME, "precision": "float32"} | plain | gate
    assert in_process("evaluate", run_id=trained.info.run_id, **settings) == 0
    evaluated = workflow.runs("evaluate")[0]
    assert {"test_auc_tuberculosis", "test_auc_tuberculosis_low", "val_recall_healthy"} <= set(evaluated.data.metrics)
    report = json.loads(workflow.artifact(evaluated, "evaluation/report.json").read_text())
    assert report["gate"]["checks"][0]["rule"] == "validation auc_tuberculosis at least 0"
    named = evaluated.data.metrics.keys() | report["test"]["scores"].keys()
    assert not [name for name in named if "pneumonia" in name or "normal" in name]

    # As it is served: the columns, the signature, files at once, the page.
    [version] = workflow.client.search_model_versions(f"name='{NAME}'")
    uri = f"models:/{NAME}/{version.version}"
    loaded = mlflow.pyfunc.load_model(uri)
    assert [column.name for column in loaded.metadata.get_output_schema()] == COLUMNS
    pictures = sorted((xrays / "test").rglob("*.jpeg"))
    table = loaded.predict({"image": np.array([file.read_bytes() for file in pictures], dtype=object)})
    assert list(table) == COLUMNS and set(table["decision"].dropna()) <= {"healthy", "tuberculosis"}
    service = Service(service_folder(uri, tmp_path / "model"), threads=cores())
    assert (service.classes, service.finding) == (manifest.classes, "tuberculosis")
    assert batch.score(service, [str(file) for file in pictures], tmp_path / "out.parquet", {}, uri)
    page = TestClient(application(service, NAME), base_url="http://localhost").get("/").text
    assert '"finding": "tuberculosis"' in page and '"title": "Tuberculosis on chest X-rays"' in page

    # Validated on a set of the same classes, which need not be named again.
    assert in_process("validate", data_path=xrays / "test", registry__name=NAME, **plain) == 0
    validated = workflow.runs("validate")[0]
    report = json.loads(workflow.artifact(validated, "validation/report.json").read_text())
    assert report["data"]["mapping"] == {"healthy": "healthy", "tuberculosis": "tuberculosis"}
    assert "external_auc_tuberculosis" in validated.data.metrics and report["data"]["overlap"]["own_test"] == 8
    data_settings = yaml.safe_load(workflow.artifact(validated, "settings.yaml").read_text())["data"]
    assert (data_settings["classes"], data_settings["finding"]) == (["healthy", "tuberculosis"], "tuberculosis")


def test_folders_of_other_names_are_refused_with_those_expected(refused, xrays):
    line = refused("prepare_split", data_path=xrays, data__classes="[clear, mass]", data__finding="mass")
    assert "files in folders clear and mass" in line
    assert "set data.finding=mass" in refused("prepare_split", data_path=xrays, data__classes="[clear, mass]")
