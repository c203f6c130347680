"""Against a real archive: search, retrieve, store, and nothing new the second time."""

import io

import pydicom
import pytest

from cxr.archive import connection
from cxr.archive.delivery import HEATMAPS, PRESENT, REPORTS, Delivery
from cxr.archive.dicomweb import Server
from cxr.archive.query import read_query
from cxr.errors import CxrError
from tests.cxr.archive.made import MODEL, STUDY, answer, radiograph, referral, rows
from tests.cxr.archive.orthanc import PASSWORD, USER, running

MAX_BYTES = 20_000_000
NAME = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    with running(tmp_path_factory.mktemp("orthanc")) as orthanc:
        for number in range(1, 4):
            orthanc.put(radiograph(number))
        orthanc.put(radiograph(4, study="1.2.826.0.1.3680043.8.498.9", Modality="CR", PatientID="0013"))
        japanese = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": NAME, "PatientID": "0014"}
        orthanc.put(radiograph(5, study="1.2.826.0.1.3680043.8.498.10", **japanese, StudyDate="20200101"))
        yield orthanc


@pytest.fixture
def server(archive, monkeypatch):
    monkeypatch.setenv(connection.USERNAME, USER)
    monkeypatch.setenv(connection.PASSWORD, PASSWORD)
    monkeypatch.delenv(connection.TOKEN, raising=False)
    return Server(archive.url)


def test_searches(server, monkeypatch):
    monkeypatch.setattr("cxr.archive.dicomweb.PAGE", 2)
    assert len(server.instances(read_query(""))) == 5
    assert len(server.instances(read_query("Modality: CR"))) == 1
    assert len(server.instances(read_query("{Modality: [DX, CR], StudyDate: 20261101-20261128}"))) == 4
    assert len(server.instances(read_query("PatientID: ['0012', '0013']"))) == 4
    assert server.instances(read_query("PatientID: nobody")) == []


def test_an_instance_comes_as_it_was_sent(server):
    (path,) = server.instances(read_query("Modality: CR"))
    data, reason = server.read(path, MAX_BYTES)
    sent = radiograph(4, study="1.2.826.0.1.3680043.8.498.9", Modality="CR", PatientID="0013")
    assert reason == "" and pydicom.dcmread(io.BytesIO(data)) == pydicom.dcmread(io.BytesIO(sent))
    assert server.read(path[:-1] + "99", MAX_BYTES) == (None, "the server answered with status 404")
    assert server.read(path, 1000)[1] == "more than 1,000 bytes"


def test_wrong_credentials_are_told(archive, server, monkeypatch):
    monkeypatch.setenv(connection.PASSWORD, "wrong")
    with pytest.raises(CxrError, match=r"access denied \(status 401\); set DICOMWEB_USERNAME") as error:
        Server(archive.url).instances(read_query(""))
    assert "wrong" not in str(error.value)


def test_results_are_stored_once_and_come_back_as_they_were_made(archive, server):
    paths = server.instances(read_query(""))
    images = [server.read(path, MAX_BYTES)[0] for path in paths]
    answers = rows(*[answer()] * 4, referral())
    deliver = Delivery(MODEL, server)
    deliver(images, answers)
    assert deliver.counts == {REPORTS: 5, HEATMAPS: 4} and not deliver.reasons
    held = [pydicom.dcmread(io.BytesIO(data)) for data in archive.files()]
    assert sorted(one.Modality for one in held) == ["CR"] + ["DX"] * 4 + ["OT"] * 4 + ["SR"] * 5
    again = Delivery(MODEL, Server(archive.url))
    again(images, answers)
    assert again.counts == {PRESENT: 5} and len(archive.ask("instances")) == 14
    # In the studies of the images, with their patients.
    assert len(archive.ask("studies")) == 3 and len(archive.ask("patients")) == 3
    ours = [one for one in held if one.Modality in ("OT", "SR")]
    assert {one.StudyInstanceUID for one in ours if one.PatientID == "0012"} == {STUDY}
    assert {str(one.PatientName) for one in ours if one.PatientID == "0014"} == {NAME}
    # Searches for radiographs do not find them.
    assert server.instances(read_query("")) == paths
