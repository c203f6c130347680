"""`predict` with results in an archive, as a user starts it."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pydicom
import pytest

from cxr.archive import connection
from cxr.archive.dicomweb import Server
from cxr.datasets.manifest import Manifest
from cxr.imaging.decode import read_grey
from cxr.serving import batch
from tests.cxr.archive.fake_server import serving, status, times
from tests.cxr.archive.made import STUDY, radiograph, validated
from tests.cxr.archive.orthanc import PASSWORD, USER, running
from tests.helpers import ROOT


@pytest.fixture(scope="module")
def images(workflow) -> list[bytes]:
    """Radiographs of the workflow's test images, and one that no network should answer for."""
    split = Manifest.load(workflow.artifact(workflow.first("prepare_split"), "split"))
    greys = [read_grey(file).astype(np.uint16) * 16 for file in split.split("test").files()[:4]]
    return [radiograph(n, pixels=grey) for n, grey in enumerate([*greys, np.zeros((90, 90), np.uint16)], 1)]


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


def test_a_folder_of_results(workflow, folder, tmp_path):
    output, out = tmp_path / "preds.parquet", tmp_path / "out"
    process = workflow.project("predict", f"input={folder}", f"output={output}", f"dicom_out={out}")
    assert process.returncode == 0, process.stderr
    table = pd.read_parquet(output)
    answered = table["status"].isin(["ok", "refer"]).sum()
    made = results(out)
    assert sum(one.Modality == "SR" for one in made) == answered - 1  # one names no study
    assert sum(one.Modality == "OT" for one in made) == (table["status"][:5] == "ok").sum()
    assert {one.StudyInstanceUID for one in made} == {STUDY} and table["heatmap"].isna().all()
    version = workflow.client.get_model_version_by_alias("cxr-pneumonia", "champion").version
    assert {(one.ManufacturerModelName, one.SoftwareVersions) for one in made} == {("cxr-pneumonia", str(version))}
    for file in sorted(out.rglob("*.dcm")):
        assert validated(file.read_bytes(), tmp_path) == []
    assert "will hold names of patients" in process.stderr and "ller" not in process.stderr
    assert "1 images have no results in the archive: no StudyInstanceUID" in process.stderr
    metrics = workflow.runs("predict")[0].data.metrics
    assert metrics["dicom_reports"] == answered - 1 and metrics["dicom_failed"] == 1


def test_from_and_to_a_server(in_process, fake, tmp_path):
    output = tmp_path / "preds.parquet"
    given = {"dicomweb": fake.url, "output": output, "query": "{Modality: DX}"}
    assert in_process("predict", **given) == 0
    table = pd.read_parquet(output)
    assert len(table) == 5 and set(table["status"]) <= {"ok", "refer"}
    assert list(table["path"]) == Server(fake.url).instances({"Modality": ["DX"]})
    reports = [name for name in fake.modalities() if name == "SR"]
    assert len(reports) == 5
    held = dict(fake.archive)
    # The same command again, and one for another table: nothing is added.
    assert in_process("predict", **given) == 0
    assert in_process("predict", **given | {"output": tmp_path / "again.parquet"}) == 0
    assert fake.archive == held and len(pd.read_parquet(tmp_path / "again.parquet")) == 0
    # A new image, and nothing else.
    fake.put(radiograph(9))
    assert in_process("predict", **given | {"output": tmp_path / "new.parquet"}) == 0
    assert len(pd.read_parquet(tmp_path / "new.parquet")) == 1


def test_an_interrupted_run_continues_with_its_list(in_process, fake, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(batch, "SHARD_ROWS", 2)
    output = tmp_path / "preds.parquet"
    given = {"dicomweb": fake.url, "output": output}
    last = sorted(fake.archive)[-1]
    fake.faults = [status(401, last)]  # the server lets nobody in, once it comes to this one
    assert in_process("predict", **given) == 1
    assert "access denied" in capfd.readouterr().err and not output.exists()
    assert len(list((tmp_path / "preds.parquet.shards").glob("shard-*"))) == 2
    fake.faults = []
    fake.put(radiograph(8))  # came in between: for the next run
    before = len(fake.requests)
    assert in_process("predict", **given) == 0
    assert len(pd.read_parquet(output)) == 5
    read_again = [one for one in fake.requests[before:] if one.startswith("GET") and "/series/" in one.split("?")[0]]
    assert sum(one.endswith(last) for one in read_again) == 1 and len(read_again) <= 3


def test_what_the_server_does_not_keep_fails_the_run_at_its_end(refused, fake, tmp_path):
    fake.faults = [lambda handler: handler.command == "POST" and times(1, status(409))(handler)]
    words = refused("predict", dicomweb=fake.url, output=tmp_path / "preds.parquet")
    assert "5 images have no results there" in words and "run this again with another output" in words
    assert len(pd.read_parquet(tmp_path / "preds.parquet")) == 5


def test_with_a_real_archive(workflow, images, tmp_path, monkeypatch):
    with running(tmp_path / "orthanc") as archive:
        for data in images:
            archive.put(data)
        monkeypatch.setitem(workflow.environment, connection.USERNAME, USER)
        monkeypatch.setitem(workflow.environment, connection.PASSWORD, PASSWORD)
        given = [f"dicomweb={archive.url}", "query={Modality: [DX, CR], StudyDate: 20261101-20261128}"]
        for number in range(2):
            process = workflow.project("predict", *given, f"output={tmp_path / f'{number}.parquet'}")
            assert process.returncode == 0, process.stderr
            held = [pydicom.dcmread(path) for path in _saved(archive, tmp_path)]
            assert sum(one.Modality == "SR" for one in held) == 5
        assert [len(pd.read_parquet(tmp_path / f"{number}.parquet")) for number in range(2)] == [5, 0]
        assert PASSWORD not in process.stderr + process.stdout
        assert {str(one.PatientName) for one in held} == {"Müller^Jürgen"} and len(archive.ask("studies")) == 1


def _saved(archive, folder):
    for number, data in enumerate(archive.files()):
        path = folder / f"held-{number}.dcm"
        path.write_bytes(data)
        yield path


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
        ({"input": "", "dicomweb": "http://127.0.0.1:9", "query": "{Modalty: DX}"}, "did you mean 'Modality'"),
        ({"input": "", "dicomweb": "http://127.0.0.1:9", "output": "preds.csv"}, "ends in .parquet"),
    ],
)
def test_parameters_that_do_not_go_together(refused, folder, tmp_path, given, words):
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
    said = refused("predict", **parameters)
    assert words in said and "SECRET" not in said


def test_no_other_prediction_loads_what_makes_dicom():
    code = (
        "import sys; import steps.predict, steps.work.predict; "
        "sys.exit(any(name.split('.')[0] in ('highdicom', 'dicomweb_client') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=120).returncode == 0
