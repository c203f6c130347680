"""Steps on data in a bucket: every step reads from it, and what goes wrong there is one clear line and a FAILED run."""

import json
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from cxr.datasets import phantom
from tests.s3 import ENVIRONMENT
from tests.steps.conftest import manifest_of

CHEAP = {  # settings of `evaluate` that leave out what reads no images by itself
    "evaluate__robustness": "false",
    "evaluate__map_images": 0,
    "registry__gate__minimum__auc_finding": "null",
    "registry__gate__minimum__balanced_accuracy": "null",
}


@pytest.fixture
def ran(experiment_id, exit_of, tmp_path):
    """Function that runs a step in this process; returns its exit status and its run."""

    def run(step: str, **parameters: object) -> tuple[int, mlflow.entities.Run]:
        code = exit_of(step, log_dir=tmp_path / "logs", **parameters)
        return code, mlflow.MlflowClient().search_runs([experiment_id], max_results=1)[0]

    return run


@pytest.fixture
def drawn(bucket, tmp_path) -> str:
    """URL of drawn phantoms."""
    phantom.draw(tmp_path / "set", 60, 7)
    return bucket.put_tree(tmp_path / "set", "sets/drawn")


def logged(run: mlflow.entities.Run, name: str) -> str:
    return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=f"logs/{name}")).read_text()


@pytest.mark.slow
def test_every_step_works_on_a_bucket(bucket, drawn, ran, tmp_path):
    cache = {"cache__dir": tmp_path / "cache", "precision": "float32"}
    bucket.proxy.cuts = [100, 100]
    code, run = ran("prepare_split", data_path=drawn)
    assert code == 0
    manifest = manifest_of(run)
    assert str(manifest.root) == drawn == run.data.tags["cxr.data_root"] and len(manifest) > 50
    told = [line for line in logged(run, "warn.log").splitlines() if "remote storage" in line]
    assert len(told) == 1 and "requests to remote storage were tried again 2 times" in told[0]
    read_by = {}
    for step, more in (
        ("train", {"train__epochs": 1, "model__input_size": 64, **cache}),
        ("finetune", {"finetune__epochs": 1, **cache}),
        ("evaluate", {**CHEAP, **cache}),
    ):
        bucket.proxy.requests.clear()
        assert ran(step, **more)[0] == 0, step
        read_by[step] = sorted(bucket.reads())
    files = {
        part: [f"sets/drawn/{path}" for path in manifest.split(part).rows["path"]] for part in ("train", "val", "test")
    }
    assert read_by == {
        "train": sorted(files["train"] + files["val"]),
        "finetune": [],
        "evaluate": sorted(files["test"]),
    }

    bucket.put("lists/test.txt", "\n".join(f"../{name}" for name in files["test"]).encode())
    output = f"{bucket.url}/out/preds.parquet"
    assert ran("predict", input=f"{bucket.url}/lists/test.txt", output=output)[0] == 0
    (tmp_path / "preds.parquet").write_bytes(bucket.get("out/preds.parquet"))
    table = pd.read_parquet(tmp_path / "preds.parquet")
    assert (
        list(table["path"]) == [f"{bucket.url}/{name}" for name in files["test"]] and (table["status"] != "error").all()
    )
    phantom.draw(tmp_path / "other", 30, 8)
    code, run = ran("validate", data_path=bucket.put_tree(tmp_path / "other", "sets/other"))
    report = json.loads(
        Path(
            mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="validation/report.json")
        ).read_text()
    )
    assert code == 0 and "sets/other" in json.dumps(report)
    secrets = [ENVIRONMENT["AWS_SECRET_ACCESS_KEY"], ENVIRONMENT["AWS_ACCESS_KEY_ID"], "AWS4-HMAC"]
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert not [secret for secret in secrets if any(secret.encode() in data for data in kept)]


def test_a_connection_that_breaks_for_good_ends_the_step_in_one_line(bucket, drawn, ran, capfd):
    bucket.proxy.always = 100
    code, run = ran("prepare_split", data_path=drawn)
    errors = [line for line in capfd.readouterr().err.splitlines() if "ERROR" in line]
    assert code == 1 and run.info.status == "FAILED" and len(errors) == 1
    assert "5 attempts failed" in errors[0] and drawn in run.data.tags["cxr.error"]
    assert logged(run, "warn.log").count("remote storage were tried again") == 1
    assert drawn in logged(run, "debug.log") and "AWS4-HMAC" not in logged(run, "debug.log")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("s3://none/set", "data path s3://none/set does not exist, nor does s3://none; expected a folder"),
        ("s3://key:S3CR3T@xrays/set", "data_path: the URL holds a user, a password or a signature"),
        ("s3://xrays/set.zip?X-Amz-Signature=S3CR3T", "data_path: the URL holds a user, a password or a signature"),
        ("ftp://host/set", "data_path: unknown scheme ftp://; expected a path, or a URL with s3://, gs://"),
    ],
)
def test_data_that_cannot_be_used_is_refused(bucket, ran, tmp_path, capfd, path, words):
    code, run = ran("prepare_split", data_path=path)
    assert code == 1 and run.info.status == "FAILED" and words in run.data.tags["cxr.error"]
    assert words in capfd.readouterr().err
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert kept and not any(b"S3CR3T" in data for data in kept)


def test_without_credentials_a_step_says_where_they_are_looked_for(bucket, ran, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    code, run = ran("prepare_split", data_path="s3://xrays/set")
    assert code == 1 and "s3://xrays/set: no credentials" in run.data.tags["cxr.error"]
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in run.data.tags["cxr.error"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"cache__dir": "s3://xrays/cache"}, "cache.dir=s3://xrays/cache: expected a path on this machine"),
        ({"data__cache_dir": "gs://xrays/cache"}, "data.cache_dir=gs://xrays/cache: expected a path on this machine"),
        ({"data__labels": "s3://a:S3CR3T@b/l.csv"}, "data.labels: the URL holds a user, a password or a signature"),
        ({"data_path": "s3://xrays/set", "data__engine": "spark"}, "engine=spark reads no URLs, got s3://xrays/set"),
        ({"data__labels": "{train: 'ftp://a/l.csv', test: b}"}, "data.labels: unknown scheme ftp://"),
    ],
)
def test_settings_that_name_no_usable_place_are_refused(ran, setting, words):
    code, run = ran("prepare_split", **setting)
    assert code == 1 and words in run.data.tags["cxr.error"] and "S3CR3T" not in run.data.tags["cxr.error"]
