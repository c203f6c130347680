"""`predict` with results in an archive, as a user starts it."""

import io
import shutil
import subprocess
import sys
from importlib import import_module

import mlflow
import numpy as np
import pandas as pd
import pydicom
import pytest

from cxr.archive import connection
from cxr.archive.dicomweb import Server
from cxr.imaging.decode import read_grey
from cxr.serving import batch
from cxr.serving.service import Service
from tests.cxr.archive.fake_server import serving, status, times
from tests.cxr.archive.made import STUDY, radiograph, validated
from tests.cxr.archive.orthanc import PASSWORD, USER, running
from tests.helpers import ROOT


@pytest.fixture(scope="module")
def images(served) -> list[bytes]:
    """Radiographs of pictures that the network was made for, and a blank one."""
    greys = [read_grey(file).astype(np.uint16) * 16 for file in served.manifest.split("test").files()[:4]]
    return [radiograph(n, pixels=grey) for n, grey in enumerate([*greys, np.zeros((90, 90), np.uint16)], 1)]


@pytest.fixture
def predict(store, served, exit_of, tmp_path, monkeypatch):
    """Function that runs the step in this process with a small model; returns its exit status."""

    def requested(_):
        return "models:/cxr-pneumonia/3", Service(served.folder, threads=2, version="3")

    for module in ("predict", "predict_archive"):
        monkeypatch.setattr(import_module(f"steps.work.{module}"), "requested_service", requested)
    return lambda **parameters: exit_of("predict", log_dir=tmp_path / "logs", **parameters)


@pytest.fixture
def folder(images, tmp_path):
    """A folder of radiographs among other things."""
    root = tmp_path / "in"
    root.mkdir()
    for number, data in enumerate(images):
        (root / f"{number}.dcm").write_bytes(data)
    (root / "5.dcm").write_bytes(radiograph(6, StudyInstanceUID=None))
    (root / "6.dcm").write_bytes(radiograph(7)[:600])
    (root / "7.png").write_bytes(b"\x89PNG and no more")
    return root


@pytest.fixture
def fake(images, monkeypatch):
    monkeypatch.setattr(connection, "WAIT_S", 0.01)
    for name in (connection.USERNAME, connection.PASSWORD, connection.TOKEN):
        monkeypatch.delenv(name, raising=False)
    with serving(*images) as server:
        yield server


def results(root) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in sorted(root.rglob("*.dcm"))]


def test_a_folder_of_results(predict, folder, tmp_path, capfd):
    output, out = tmp_path / "preds.parquet", tmp_path / "out"
    assert predict(input=folder, output=output, dicom_out=out) == 0
    table, printed = pd.read_parquet(output), capfd.readouterr().err
    answered = int(table["status"].isin(["ok", "refer"]).sum())
    made = results(out)
    assert sum(one.Modality == "SR" for one in made) == answered - 1  # one names no study
    assert sum(one.Modality == "OT" for one in made) == (table["status"][:5] == "ok").sum()
    assert {one.StudyInstanceUID for one in made} == {STUDY} and table["heatmap"].isna().all()
    assert {(one.ManufacturerModelName, one.SoftwareVersions) for one in made} == {("cxr-pneumonia", "3")}
    assert "will hold names of patients" in printed and "ller" not in printed
    assert "1 images have no results in the archive: no StudyInstanceUID" in printed
    (run,) = mlflow.search_runs(output_format="list")
    assert run.data.metrics["dicom_reports"] == answered - 1 and run.data.metrics["dicom_failed"] == 1
    # The same command again.
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.dcm")}
    assert predict(input=folder, output=output, dicom_out=out) == 0
    assert "is already complete" in capfd.readouterr().err
    assert predict(input=folder, output=tmp_path / "again.parquet", dicom_out=out) == 0
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("*.dcm")}
    for file in before:
        assert validated(file.read_bytes(), tmp_path) == []


def test_a_deleted_folder_of_results_is_told(predict, folder, tmp_path, capfd):
    given = {"input": folder, "output": tmp_path / "preds.parquet", "dicom_out": tmp_path / "out"}
    assert predict(**given) == 0
    shutil.rmtree(tmp_path / "out")
    assert predict(**given) == 1
    assert f"dicom_out={tmp_path / 'out'} holds no reports, but " in capfd.readouterr().err
    assert predict(**given | {"output": tmp_path / "other.parquet"}) == 0
    assert predict(**given) == 0


def test_a_folder_of_images_without_results_misses_none(predict, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.dcm").write_bytes(radiograph(7)[:600])
    (tmp_path / "in" / "2.dcm").write_bytes(radiograph(8, StudyInstanceUID=None))
    given = {"input": tmp_path / "in", "output": tmp_path / "preds.parquet", "dicom_out": tmp_path / "out"}
    assert predict(**given) == 0
    assert predict(**given) == 0


def test_the_champion_answers_for_an_archive(workflow, folder, tmp_path):
    output, out = tmp_path / "preds.parquet", tmp_path / "out"
    process = workflow.project("predict", f"input={folder}", f"output={output}", f"dicom_out={out}")
    assert process.returncode == 0, process.stderr
    version = workflow.client.get_model_version_by_alias("cxr-pneumonia", "champion").version
    assert {(one.ManufacturerModelName, one.SoftwareVersions) for one in results(out)} == {
        ("cxr-pneumonia", str(version))
    }


def test_from_and_to_a_server(predict, fake, tmp_path):
    output = tmp_path / "preds.parquet"
    given = {"dicomweb": fake.url, "output": output, "query": "{Modality: DX}"}
    assert predict(**given) == 0
    table = pd.read_parquet(output)
    assert len(table) == 5 and set(table["status"]) <= {"ok", "refer"}
    assert list(table["path"]) == Server(fake.url).instances({"Modality": ["DX"]})
    reports = [name for name in fake.modalities() if name == "SR"]
    assert len(reports) == 5
    held = dict(fake.archive)
    # The same command again, and one for another table: nothing is added.
    assert predict(**given) == 0
    assert predict(**given | {"output": tmp_path / "again.parquet"}) == 0
    assert fake.archive == held and len(pd.read_parquet(tmp_path / "again.parquet")) == 0
    # A new image, and nothing else.
    fake.put(radiograph(9))
    assert predict(**given | {"output": tmp_path / "new.parquet"}) == 0
    assert len(pd.read_parquet(tmp_path / "new.parquet")) == 1


def test_an_interrupted_run_continues_with_its_list(predict, fake, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(batch, "SHARD_ROWS", 2)
    output = tmp_path / "preds.parquet"
    given = {"dicomweb": fake.url, "output": output}
    last = sorted(fake.archive)[-1]
    fake.faults = [status(401, last)]  # the server lets nobody in, once it comes to this one
    assert predict(**given) == 1
    assert "access denied" in capfd.readouterr().err and not output.exists()
    assert len(list((tmp_path / "preds.parquet.shards").glob("shard-*"))) == 2
    fake.faults = []
    fake.put(radiograph(8))  # came in between: for the next run
    before = len(fake.requests)
    assert predict(**given) == 0
    assert len(pd.read_parquet(output)) == 5
    retrieved = [one for one in fake.requests[before:] if one.startswith("GET") and "?" not in one]
    assert len(retrieved) == 1 and retrieved[0].endswith(last)


def of_results(fault):
    """A fault of the requests that store results."""
    return lambda handler: handler.command == "POST" and fault(handler)


def test_what_the_server_does_not_keep_fails_every_run_until_it_does(predict, fake, tmp_path, capfd):
    given = {"dicomweb": fake.url, "output": tmp_path / "preds.parquet"}
    fake.faults = [of_results(status(400))]
    for _ in range(2):
        assert predict(**given) == 1
        printed = capfd.readouterr().err
        assert "5 images have no results there, as logged above" in printed and "run this again" in printed
        assert "5 images have no results in the archive: not stored: the server answered with status 400" in printed
    table = pd.read_parquet(given["output"])
    fake.faults = []
    assert predict(**given) == 0
    assert fake.modalities().count("SR") == 5
    assert fake.modalities().count("OT") == (table["status"] == "ok").sum() > 0  # the table has no heatmaps
    pd.testing.assert_frame_equal(pd.read_parquet(given["output"]), table)
    assert predict(**given) == 0
    assert fake.modalities().count("SR") == 5


def test_what_was_refused_before_an_interruption_is_not_forgotten(predict, fake, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "SHARD_ROWS", 2)
    given = {"dicomweb": fake.url, "output": tmp_path / "preds.parquet"}
    # The first shard is kept, without results on the server.
    fake.faults = [of_results(times(2, status(400))), status(401, sorted(fake.archive)[-1])]
    assert predict(**given) == 1 and fake.modalities().count("SR") == 2
    fake.faults = []
    assert predict(**given) == 0 and fake.modalities().count("SR") == 5
    (newest, _) = mlflow.search_runs(output_format="list", order_by=["attributes.start_time DESC"])
    assert newest.data.metrics["dicom_reports"] == 3


def test_an_image_that_cannot_be_read_again_is_told(predict, fake, tmp_path, capfd):
    given = {"dicomweb": fake.url, "output": tmp_path / "preds.parquet"}
    fake.faults = [of_results(status(400))]
    assert predict(**given) == 1
    capfd.readouterr()
    fake.faults = [status(500, sorted(fake.archive)[0])]
    assert predict(**given) == 1
    printed = capfd.readouterr().err
    assert "1 images have no results in the archive: the server answered with status 500" in printed
    assert "1 images have no results there, as logged above" in printed and fake.modalities().count("SR") == 4


def test_a_server_without_images_gives_an_empty_table(predict, fake, tmp_path, capfd):
    assert predict(dicomweb=fake.url, query="Modality: CR", output=tmp_path / "preds.parquet") == 0
    assert "no image matches the query" in capfd.readouterr().err
    assert len(pd.read_parquet(tmp_path / "preds.parquet")) == 0


def test_with_a_real_archive(predict, images, tmp_path, monkeypatch, capfd):
    with running(tmp_path / "orthanc") as archive:
        for data in images:
            archive.put(data)
        monkeypatch.setenv(connection.USERNAME, USER)
        monkeypatch.setenv(connection.PASSWORD, PASSWORD)
        query = "{Modality: [DX, CR], StudyDate: 20261101-20261128}"
        for number in range(2):
            assert predict(dicomweb=archive.url, query=query, output=tmp_path / f"{number}.parquet") == 0
            held = [pydicom.dcmread(io.BytesIO(data)) for data in archive.files()]
            assert sum(one.Modality == "SR" for one in held) == 5
        assert [len(pd.read_parquet(tmp_path / f"{number}.parquet")) for number in range(2)] == [5, 0]
        assert {str(one.PatientName) for one in held} == {"Müller^Jürgen"} and len(archive.ask("studies")) == 1
    told = capfd.readouterr()
    logged = "".join(file.read_text() for file in (tmp_path / "logs").glob("*.log"))
    for secret in (PASSWORD, "Müller", "0012"):
        assert secret not in told.out + told.err + logged


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dicom_out": "OUT", "engine": "spark"}, "dicom_out goes with engine=local only, got engine=spark"),
        ({"dicomweb": "http://127.0.0.1:9", "engine": "spark"}, "dicomweb goes with engine=local only"),
        ({"dicom_out": "OUT", "dicomweb": "http://127.0.0.1:9"}, "dicom_out and dicomweb are both given"),
        ({"dicomweb": "http://127.0.0.1:9"}, "input and dicomweb are both given"),
        ({"query": "{Modality: DX}"}, "query searches a DICOMweb server; add -P dicomweb="),
        ({"dicom_out": "IN/out"}, "is within input="),
        ({"dicom_out": "OUT", "input": "PICTURES"}, "none of its 2 files is DICOM"),
        ({"input": "", "dicomweb": "http://u:SECRET@127.0.0.1:9"}, "DICOMWEB_USERNAME and DICOMWEB_PASSWORD"),
        ({"input": "", "dicomweb": "u:SECRET@127.0.0.1:9"}, "DICOMWEB_USERNAME and DICOMWEB_PASSWORD"),
        ({"input": "", "dicomweb": "http://127.0.0.1:9", "query": "{Modalty: DX}"}, "did you mean 'Modality'"),
        ({"input": "", "dicomweb": "http://127.0.0.1:9", "output": "preds.csv"}, "ends in .parquet"),
    ],
)
def test_parameters_that_do_not_go_together(predict, folder, tmp_path, capfd, given, words):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in "ab":
        (pictures / f"{name}.png").write_bytes(b"\x89PNG")
    places = {"OUT": tmp_path / "out", "IN": folder, "PICTURES": pictures}

    def place(text: str) -> str:
        for name, path in places.items():
            text = text.replace(name, str(path))
        return text

    parameters = {"input": str(folder), "output": str(tmp_path / "preds.parquet")}
    parameters |= {name: place(value) for name, value in given.items()}
    assert predict(**parameters) == 1
    said = capfd.readouterr().err
    (run,) = mlflow.search_runs(output_format="list")
    assert not any("SECRET" in value for value in run.data.tags.values())
    assert words in said and "SECRET" not in said and said.count("ERROR") == 1 and "Traceback" not in said


def test_no_other_prediction_loads_what_makes_dicom():
    code = (
        "import sys; import steps.predict, steps.work.predict; "
        "sys.exit(any(name.split('.')[0] in ('highdicom', 'dicomweb_client') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=120).returncode == 0
