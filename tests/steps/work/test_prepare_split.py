"""`prepare_split` as users start it: several at once, with the same cache folder; the folds of a cross-validation."""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.datasets import folds, inspection, overlap
from tests.cxr.imaging.test_dicom import NOISE, RAMP
from tests.cxr.imaging.test_dicom import file_of as dicom_file
from tests.helpers import png
from tests.steps.conftest import manifest_of

RNG = np.random.default_rng(0)
FILES = ("manifest.csv", "split.json", "leaks.json", "unreadable.csv", "counts.csv", "fingerprints.parquet")


def test_two_runs_on_one_archive_at_once_make_the_same_split(run_step, experiment_id, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for number in range(900):
            label = ("normal", "bacteria", "virus")[number % 3]
            name = f"NORMAL/IM-{number}-1.png" if label == "normal" else f"PNEUMONIA/person{number}_{label}_1.png"
            packed.writestr(name, png(RNG.integers(0, 256, (24, 24), dtype=np.uint8)))
    argv = ("--data_path", str(tmp_path / "set.zip"), "--data.cache_dir", str(tmp_path / "cache"))
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: run_step("prepare_split", *argv, "--data.workers", "1"), range(2)))
    assert [process.returncode for process in done] == [0, 0], "".join(process.stderr for process in done)
    runs = mlflow.MlflowClient().search_runs([experiment_id])
    assert len(runs) == 2 and len({run.data.tags["cxr.manifest_digest"] for run in runs}) == 1
    assert all(run.data.metrics["decoded"] == 900 for run in runs)


@pytest.fixture
def prepared(experiment_id, tmp_path, exit_of):
    """Function that runs `prepare_split` on 18 patients in this process; returns its exit status and its run."""
    for number in range(18):
        label = ("normal", "bacteria", "virus")[number % 3]
        name = f"NORMAL/IM-{number}-1.png" if label == "normal" else f"PNEUMONIA/person{number}_{label}_1.png"
        path = tmp_path / "set" / ("test" if number < 6 else "train") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (24, 24), dtype=np.uint8)).save(path)

    def run(**parameters: object) -> tuple[int, mlflow.entities.Run]:
        values = {"data_path": tmp_path / "set", "log_dir": tmp_path / "logs", **parameters}
        code = exit_of("prepare_split", **values)
        return code, mlflow.MlflowClient().search_runs([experiment_id], max_results=1)[0]

    return run


def test_the_images_are_decoded_once_for_all_folds(prepared, monkeypatch):
    (code, first), decoded = prepared(data__folds=2), prepared(data__folds=2, data__fold=1)[1]
    with monkeypatch.context() as patch:
        patch.setattr(inspection, "survey", None)
        again, second = prepared(data__folds=2, data__fold=1, survey_run_id=first.info.run_id)
        assert prepared(data__folds=2, survey_run_id=second.info.run_id)[0] == 0
    assert code == again == 0
    assert manifest_of(second).digest == manifest_of(decoded).digest
    assert second.data.tags["cxr.step_key"] == decoded.data.tags["cxr.step_key"] != first.data.tags["cxr.step_key"]
    assert folds.complete([manifest_of(first), manifest_of(second)])


def test_the_fingerprints_are_those_of_the_images_in_the_split(prepared, tmp_path):
    copy = tmp_path / "set/train/NORMAL/IM-99-1.png"
    copy.write_bytes((tmp_path / "set/test/NORMAL/IM-0-1.png").read_bytes())
    code, run = prepared()
    folder = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="split")
    prints, rows = overlap.load(Path(folder)), manifest_of(run).rows
    assert code == 0 and len(rows) == 18 and copy.name not in "".join(rows["path"])
    shared = ["path", "patient", "split", "sha256"]
    pd.testing.assert_frame_equal(prints[shared], rows[shared])
    assert overlap.find(prints, prints, 6)["other"].tolist() == list(range(18))


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"data__folds": 3}, "expected a run on the same files with the same seed and settings of data"),
        ({"seed": 1}, "expected a run on the same files with the same seed and settings of data"),
        ({"data__folds": 5}, "data.folds=5: expected at least 5 patients of every class outside the test split, got 4"),
        ({"data__fold": 2}, "fold 2 of 2 folds: expected a fold from 0 to 1"),
        ({"data__folds": "null", "data__fold": 1}, "fold 1 is given without folds"),
    ],
)
def test_folds_that_cannot_be_are_refused_in_one_line(prepared, capfd, changed, words):
    first = prepared(data__folds=2)[1]
    given = {"data__folds": 2, "survey_run_id": first.info.run_id, **changed}
    if changed == {"data__folds": 5}:
        del given["survey_run_id"]
    code, failed = prepared(**given)
    assert code == 1 and failed.info.status == "FAILED" and words in failed.data.tags["cxr.error"]
    assert len([line for line in capfd.readouterr().err.splitlines() if "ERROR" in line]) == 1


def test_spark_makes_the_same_split_byte_by_byte(prepared, tmp_path):
    pytest.importorskip("pyspark", reason="an extra: pip install -r requirements-spark.txt")
    train = tmp_path / "set/train/NORMAL"
    (train / "IM-90-1.dcm").write_bytes(dicom_file(NOISE))
    (train / "IM-91-1.dcm").write_bytes(dicom_file(RAMP))
    (train / "IM-92-1.dcm").write_bytes(dicom_file(RAMP)[:-900])
    (train / "IM-93-1.png").write_bytes(b"no image")
    (train / "IM-94-\x1b[2J.png").write_bytes(b"no name")
    (train / "IM-95-1.png").write_bytes((train / "IM-6-1.png").read_bytes())
    (train / "IM-96-1.png").write_bytes((tmp_path / "set/test/NORMAL/IM-0-1.png").read_bytes())
    files = []
    for engine in ("local", "spark"):
        code, run = prepared(engine=engine, data__max_unreadable=0.5)
        assert code == 0 and run.data.metrics["unreadable"] == 3
        folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="split"))
        files.append({"key": run.data.tags["cxr.step_key"]} | {name: (folder / name).read_bytes() for name in FILES})
    assert files[0] == files[1]
    rows = manifest_of(run).rows
    assert rows["patient"].str.startswith("dicom/").sum() == 2 and b"IM-96-1.png" in files[1]["leaks.json"]
