"""`prepare_split` on a set whose labels are in a table: PNG and DICOM files of two sites, with ages and sexes."""

import io

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr.datasets import phantom
from tests.cxr.imaging.test_dicom import file_of
from tests.helpers import png
from tests.steps.conftest import manifest_of

SITES = ("east", "west")


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """Folder with a table of 24 images of 12 patients, and the images: one PNG and one DICOM file of each patient."""
    folder = tmp_path_factory.mktemp("hospital")
    rows = []
    for number in range(12):
        finding = ("No Finding", "Pneumonia|Effusion")[number % 2]
        site = SITES[number % 4 // 2]
        (folder / site).mkdir(exist_ok=True)
        for kind in ("png", "dcm"):
            picture = phantom.example(("normal", "bacteria")[number % 2], seed=2 * number + (kind == "png"))
            grey = np.asarray(Image.open(io.BytesIO(picture)))[::4, ::4].copy()
            # The same names at both sites; in their headers, the DICOM files have patients of another numbering.
            name = f"{number // 4:04}-{number % 2}.{kind}"
            data = png(grey) if kind == "png" else file_of(grey, bits=8, PatientID=f"other-{number}-{kind}")
            (folder / site / name).write_bytes(data)
            rows.append([site, name, finding, f"MRN{number:03}", ("M", "F")[number // 2 % 2], f"{number:03}Y", "PA"])
    rows.append(["east", "lateral.png", "No Finding", "MRN099", "M", "050Y", "L"])
    names = ["Site", "File", "Findings", "Person", "Sex", "Age", "View"]
    pd.DataFrame(rows, columns=names).to_csv(folder / "labels.tsv", sep="\t", index=False)
    (folder / "recipe.yaml").write_text(
        "classes: 2\nlabels: labels.tsv\nseparator: '|'\nmapping: {No Finding: normal, Pneumonia: pneumonia}\n"
        "columns: {path: '{Site}/{File}', label: Findings, patient: Person, age: Age, sex: Sex, view: View, "
        "site: Site}\n"
        "filters: {View: [PA, AP]}\nval_size: 0.25\ntest_size: 0.25\n"
    )
    return folder


@pytest.fixture
def prepare(experiment_id, hospital, tmp_path, exit_of):
    """Function that runs `prepare_split` with the recipe in this process; returns its exit status and its run."""

    def run(**overrides: object) -> tuple[int, mlflow.entities.Run]:
        values = {
            "data.path": hospital,
            "data.recipe": hospital / "recipe.yaml",
            "log_dir": tmp_path / "logs",
            **overrides,
        }
        code = exit_of("prepare_split", **values)
        return code, mlflow.MlflowClient().search_runs([experiment_id], max_results=1)[0]

    return run


def test_a_table_becomes_a_manifest_of_splits_by_patient(prepare, hospital):
    code, run = prepare()
    assert code == 0
    manifest = manifest_of(run)
    rows = manifest.rows.sort_values("path", ignore_index=True)
    assert len(rows) == 24 and manifest.classes == ("normal", "pneumonia")
    assert manifest.extras == ["age", "sex", "view", "site"]
    # The same names at two sites are two images, and the file's own patient gives way to that of the table.
    assert rows["path"].str.startswith("east/").sum() == rows["path"].str.startswith("west/").sum() == 12
    assert rows.groupby("patient").size().tolist() == [2] * 12
    assert rows.groupby("patient")["split"].nunique().max() == 1
    assert set(rows["split"]) == {"train", "val", "test"}
    given = pd.read_csv(hospital / "labels.tsv", sep="\t").iloc[:24]
    given = given.assign(path=given["Site"] + "/" + given["File"]).sort_values("path", ignore_index=True)
    assert rows["path"].tolist() == given["path"].tolist()
    assert rows["age"].tolist() == given["Age"].str.rstrip("Y").astype(float).tolist()
    assert rows["sex"].tolist() == given["Sex"].map({"M": "male", "F": "female"}).tolist()
    assert (rows["label"] == "pneumonia").tolist() == given["Findings"].str.contains("Pneumonia").tolist()
    assert manifest.source["left_out"] == {"filter View": 1}
    assert not rows.astype(str).apply(lambda column: column.str.contains("MRN")).any().any()


def test_folds_of_a_table_share_what_was_decoded(prepare, monkeypatch):
    first = prepare(**{"data.folds": 2})[1]
    code, second = prepare(**{"data.folds": 2, "data.fold": 1, "survey_run_id": first.info.run_id})
    assert code == 0
    assert manifest_of(second).extras == manifest_of(first).extras
    assert manifest_of(second).source == manifest_of(first).source


def test_a_table_that_cannot_be_used_fails_the_run_in_one_line(prepare, capfd):
    code, run = prepare(**{"data.columns.age": "Years"})
    assert code == 1 and run.info.status == "FAILED"
    words = "no column 'Years', which data.columns.age names; its columns are Site, File, Findings, Person"
    assert words in run.data.tags["cxr.error"]
    assert len([line for line in capfd.readouterr().err.splitlines() if "ERROR" in line]) == 1
