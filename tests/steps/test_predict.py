"""`predict` as a user starts it, locally and with Spark."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest

from cxr.datasets.manifest import Manifest
from cxr.monitoring import table as monitored
from cxr.serving.columns import TIME
from cxr.serving.service import MEASURED
from tests.helpers import CLASSES

BOTH = {"input": "LIST", "output": "LIST.parquet"}


@pytest.fixture(scope="module")
def list_file(workflow, tmp_path_factory):
    """List file of the workflow's test images, with one unreadable and one missing file among them."""
    split = Manifest.load(workflow.artifact(workflow.first("prepare_split"), "split"))
    folder = tmp_path_factory.mktemp("predict")
    (folder / "bad.png").write_bytes(b"\x89PNG and no more")
    paths = [str(file) for file in split.split("test").files()]
    (folder / "list.txt").write_text("\n".join([*paths[:3], "bad.png", "missing.png", *paths[3:]]))
    return folder / "list.txt"


@pytest.fixture(scope="module")
def table(workflow, list_file):
    output = list_file.with_name("preds.parquet")
    process = workflow.project("predict", f"input={list_file}", f"output={output}")
    assert process.returncode == 0, process.stderr
    return pd.read_parquet(output)


def test_rows_are_those_of_evaluate_in_the_order_of_the_list(workflow, list_file, table):
    version = workflow.client.get_model_version_by_alias("cxr-pneumonia", "champion")
    evaluated = workflow.client.get_run(version.tags["cxr.evaluate_run_id"])
    predictions = json.loads(workflow.artifact(evaluated, "evaluation/predictions.json").read_text())
    names = [line.split("/")[-1] for line in list_file.read_text().split("\n")]
    assert list(table["path"].str.split("/").str[-1]) == names
    readable = table.drop(index=[3, 4]).reset_index(drop=True)
    assert list(readable["label"]) == [p["prediction"] for p in predictions]
    for name in ("normal", "bacteria", "virus"):
        probabilities = [p["probabilities"][name] for p in predictions]
        assert readable[f"probability_{name}"].tolist() == pytest.approx(probabilities, abs=1e-4)
    assert list(table.loc[[3, 4], "status"]) == ["error", "error"] and table.loc[[3, 4], "label"].isna().all()
    assert set(table["model_version"]) == {str(version.version)}
    run = [run for run in workflow.runs("predict") if run.data.params.get("input") == str(list_file)][-1]
    assert run.data.metrics["rows"] == len(table) and run.data.metrics["rows_error"] == 2


def test_spark_gives_the_same_rows(workflow, list_file, table):
    pytest.importorskip("pyspark", reason="an extra: pip install -r requirements-spark.txt")
    output = list_file.with_name("spark.parquet")
    process = workflow.project("predict", f"input={list_file}", f"output={output}", "engine=spark")
    assert process.returncode == 0, process.stderr
    from_spark = pd.read_parquet(output)
    assert list(from_spark) == list(table)
    numbers = [name for name in table if name.startswith("probability_") or name in MEASURED]
    pd.testing.assert_frame_equal(from_spark[numbers], table[numbers], atol=1e-6)
    texts = table.columns.difference([*numbers, TIME])
    assert from_spark[texts].fillna("").equals(table[texts].fillna(""))
    reference = SimpleNamespace(classes=list(CLASSES), finding="pneumonia")
    read = monitored.read(output, reference, table["model_version"].iat[0])
    assert len(read.rows) == len(table) and read.rows["path"].equals(table["path"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "input is not given; add -P input="),
        ({"input": "LIST"}, "output is not given"),
        ({"input": "LIST.none", "output": "LIST.parquet"}, "does not exist; give a folder"),
        ({"input": "LIST", "output": "LIST.csv"}, "a name that ends in .parquet"),
        (BOTH | {"model_uri": "models:/none@champion"}, "run `mlflow run . -e main` first"),
        (
            BOTH | {"model_uri": "runs:/1"},
            "model_uri: expected models:/NAME@ALIAS or models:/NAME/VERSION, got 'runs:/1'",
        ),
        (BOTH | {"operating_point": "best"}, "unknown operating_point; expected one of argmax"),
        (BOTH | {"engine": "dask"}, "setting data.engine = 'dask': it should be 'local' or 'spark'"),
        (BOTH | {"input": "ftp://host/in"}, "input: unknown scheme ftp://; expected a path, or a URL with s3://"),
        (BOTH | {"output": "s3://k:S3CR3T@b/o.parquet"}, "output: the URL holds a user, a password or a signature"),
        (BOTH | {"engine": "spark", "output": "s3://b/o"}, "engine=spark reads and writes no URLs, got s3://b/o"),
        (BOTH | {"dicom_out": "s3://b/o"}, "dicom_out=s3://b/o: expected a path on this machine"),
    ],
)
def test_invalid_parameters_are_refused(refused, list_file, given, words):
    assert words in refused("predict", **{name: value.replace("LIST", str(list_file)) for name, value in given.items()})
