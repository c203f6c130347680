"""Many files through the registered model, as a user starts it; with Spark as without."""

import json

import pandas as pd
import pytest

from cxr.datasets.manifest import Manifest

BOTH = {"input": "LIST", "output": "LIST.parquet"}


@pytest.fixture(scope="module")
def pictures(workflow, tmp_path_factory):
    """The test images of the workflow in a list file, one that is no picture and one that is not there among them."""
    split = Manifest.load(workflow.artifact(workflow.first("prepare_split"), "split"))
    folder = tmp_path_factory.mktemp("predict")
    (folder / "bad.png").write_bytes(b"\x89PNG and no more")
    paths = [str(file) for file in split.split("test").files()]
    (folder / "list.txt").write_text("\n".join([*paths[:3], "bad.png", "none.png", *paths[3:]]))
    return folder / "list.txt"


@pytest.fixture(scope="module")
def table(workflow, pictures):
    output = pictures.with_name("preds.parquet")
    done = workflow.project("predict", f"input={pictures}", f"output={output}")
    assert done.returncode == 0, done.stderr
    return pd.read_parquet(output)


def test_rows_are_those_of_evaluate_in_the_order_of_the_list(workflow, pictures, table):
    version = workflow.client.get_model_version_by_alias("cxr-pneumonia", "champion")
    evaluated = workflow.client.get_run(version.tags["cxr.evaluate_run_id"])
    wanted = json.loads(workflow.artifact(evaluated, "evaluation/predictions.json").read_text())
    names = [line.split("/")[-1] for line in pictures.read_text().split("\n")]
    assert list(table["path"].str.split("/").str[-1]) == names
    good = table.drop(index=[3, 4]).reset_index(drop=True)
    assert list(good["label"]) == [p["prediction"] for p in wanted]
    for name in ("normal", "bacteria", "virus"):
        evaluated = [p["probabilities"][name] for p in wanted]
        assert good[f"probability_{name}"].tolist() == pytest.approx(evaluated, abs=1e-4)
    assert list(table.loc[[3, 4], "status"]) == ["error", "error"] and table.loc[[3, 4], "label"].isna().all()
    assert set(table["model_version"]) == {str(version.version)}
    run = workflow.runs("predict")[-1]
    assert run.data.metrics["rows"] == len(table) and run.data.metrics["rows_error"] == 2


def test_spark_gives_the_same_rows(workflow, pictures, table):
    pytest.importorskip("pyspark", reason="an extra: pip install -r requirements-spark.txt")
    output = pictures.with_name("spark.parquet")
    done = workflow.project("predict", f"input={pictures}", f"output={output}", "engine=spark")
    assert done.returncode == 0, done.stderr
    found = pd.read_parquet(output)
    assert list(found) == list(table)
    numbers = [name for name in table if name.startswith("probability_")]
    pd.testing.assert_frame_equal(found[numbers], table[numbers], atol=1e-6)
    words = table.columns.difference(numbers)
    assert found[words].fillna("").equals(table[words].fillna(""))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "input is not given; write -P input="),
        ({"input": "LIST"}, "output is not given"),
        ({"input": "LIST.none", "output": "LIST.parquet"}, "does not exist; give a folder"),
        ({"input": "LIST", "output": "LIST.csv"}, "a name that ends in .parquet"),
        (BOTH | {"model_uri": "models:/none@champion"}, "run `mlflow run . -e main` first"),
        (BOTH | {"model_uri": "runs:/1"}, "give models:/NAME@ALIAS or models:/NAME/VERSION"),
        (BOTH | {"operating_point": "best"}, "operating_point 'best'; allowed: argmax"),
        (BOTH | {"engine": "dask"}, "engine=dask; allowed: local, spark"),
    ],
)
def test_wishes_that_cannot_be(refused, pictures, given, words):
    assert words in refused("predict", **{name: value.replace("LIST", str(pictures)) for name, value in given.items()})
