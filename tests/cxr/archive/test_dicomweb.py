"""A DICOMweb server that fails in every way known: retried, refused in one line, or left out for one image."""

import gzip
import logging
import socket
import threading
import time

import pytest

from cxr.archive import connection, dicomweb
from cxr.archive.delivery import HEATMAPS, REPORTS, Delivery
from cxr.archive.dicomweb import Server, parts_of
from cxr.archive.query import read_query
from cxr.errors import CxrError
from tests.cxr.archive.fake_server import hang_up, status, times
from tests.cxr.archive.made import MODEL, SERIES, STUDY, answer, radiograph, rows

MAX_BYTES = 20_000_000
ALL = read_query("")


def path_of(server: Server, number: int = 1) -> str:
    return server.path(STUDY, SERIES, f"{SERIES}.{number}")


def test_searches_go_page_by_page_and_find_everything_once(fake, monkeypatch):
    monkeypatch.setattr(dicomweb, "PAGE", 2)
    server = Server(fake.url + "/")
    assert server.instances(ALL) == [path_of(server, number) for number in range(1, 6)]
    fake.page = 0  # a server that lists everything, whatever page is asked for
    assert len(server.instances(ALL)) == 5
    assert server.instances(read_query("Modality: CR")) == []
    assert parts_of(path_of(server)) == (STUDY, SERIES, f"{SERIES}.1")


def test_a_list_of_values_is_one_search_each(fake):
    Server(fake.url).instances(read_query("{Modality: [CR, DX], PatientID: '0012'}"))
    asked = [request for request in fake.requests if "offset=0" in request]
    assert len(asked) == 2 and all("PatientID=0012" in request for request in asked)


def test_an_instance_is_read_as_it_is_stored(fake):
    server = Server(fake.url)
    assert server.read(path_of(server), MAX_BYTES) == (radiograph(1), "")
    data, reason = server.read(path_of(server, 99), MAX_BYTES)
    assert data is None and reason == "the server answered with status 404"


def test_no_more_than_the_limit_is_ever_held(fake):
    server = Server(fake.url)
    assert server.read(path_of(server), 5000)[1] == "more than 5,000 bytes"

    def endless(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "application/dicom")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"\0" * 65536)
        except OSError:
            sent.set()
        return True

    sent = threading.Event()
    fake.faults = [endless]
    assert "more than 1,065,536 bytes" in server.read(path_of(server), 1_000_000)[1]
    assert sent.wait(10)  # the connection was closed


def test_answers_to_searches_are_bounded_too(fake, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_BYTES", 100)
    with pytest.raises(CxrError, match=r"a search failed \(more than 100 bytes\)"):
        Server(fake.url).instances(ALL)


def test_a_server_that_sends_a_byte_now_and_then_is_left(fake, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_S", 0.3)

    def slow(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(400):
            handler.wfile.write(b"x")
            time.sleep(0.05)
        return True

    fake.faults = [slow]
    started = time.monotonic()
    server = Server(fake.url)
    assert "not complete after 0.3 s" in server.read(path_of(server), MAX_BYTES)[1]
    assert time.monotonic() - started < 15


BROKEN = {
    "no DICOM": lambda h: h.multipart(b"<html>"),
    "a web page": lambda h: h.answer(200, b"<html>", "text/html"),
    "no boundary": lambda h: h.answer(200, b"x", "multipart/related"),
    "cut short": lambda h: h.answer(200, b"--b\r\n\r\n" + radiograph(1), "multipart/related; boundary=b"),
    "another one": lambda h: h.multipart(radiograph(2)),
    "no header": lambda h: h.multipart(radiograph(1)[:200]),
    "no gzip": lambda h: (
        h.send_response(200),
        h.send_header("Content-Encoding", "gzip"),
        h.send_header("Content-Length", "3"),
        h.end_headers(),
        h.wfile.write(b"abc"),
    ),
    "status 500": lambda h: h.answer(500, b"<trace>"),
    "status 406": lambda h: h.answer(406),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_instance_is_a_row_of_its_own(fake, kind):
    fake.faults = [times(1, lambda handler: (BROKEN[kind](handler), True)[1])]
    server = Server(fake.url)
    data, reason = server.read(path_of(server), MAX_BYTES)
    assert data is None and reason and "\n" not in reason and "<" not in reason
    assert server.read(path_of(server), MAX_BYTES) == (radiograph(1), "")  # the connection is still good


def test_gzip_is_unpacked_within_the_limit(fake):
    def packed(handler):
        body = gzip.compress(b"\0" * 50_000_000)
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
        return True

    fake.faults = [packed]
    server = Server(fake.url)
    assert "more than" in server.read(path_of(server), 1_000_000)[1]


@pytest.mark.parametrize("fault", [hang_up, status(503), status(429), status(502)])
def test_faults_of_the_connection_are_tried_again(fake, fault):
    fake.faults = [times(2, fault)]
    server = Server(fake.url)
    assert len(server.instances(ALL)) == 5
    fake.faults = [times(2, fault)]
    assert server.read(path_of(server), MAX_BYTES)[0] == radiograph(1)
    before = len(fake.archive)
    fake.faults = [times(3, fault)]
    deliver = Delivery(MODEL, server)
    deliver([radiograph(1)], rows(answer()))
    assert deliver.counts == {REPORTS: 1, HEATMAPS: 1} and len(fake.archive) == before + 2


def test_the_waits_grow(fake, monkeypatch):
    slept = []
    monkeypatch.setattr(connection, "WAIT_S", 1.0)
    monkeypatch.setattr(connection.time, "sleep", slept.append)
    fake.faults = [status(503)]
    with pytest.raises(CxrError, match=r"is not available \(status 503, 5 tries\); run again later"):
        Server(fake.url).instances(ALL)
    assert slept == [0.0, 1.0, 2.0, 4.0, 8.0]


def test_a_server_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/dicom-web"
    with pytest.raises(CxrError, match=r"cannot be reached \(Connection refused, 5 tries\); start the server") as error:
        Server(url).instances(read_query("{PatientID: SECRET-17}"))
    assert "SECRET" not in str(error.value)
    with pytest.raises(CxrError, match="cannot be reached"):
        Server(url).read(path_of(Server(url)), MAX_BYTES)


@pytest.mark.parametrize("code", [401, 403])
def test_a_server_that_lets_nobody_in(fake, code):
    fake.faults = [status(code)]
    with pytest.raises(
        CxrError, match=rf"access denied \(status {code}\); set DICOMWEB_USERNAME and DICOMWEB_PASSWORD"
    ):
        Server(fake.url).instances(ALL)
    with pytest.raises(CxrError, match="access denied"):
        Delivery(MODEL, Server(fake.url))([radiograph()], rows(answer()))
    assert len(fake.requests) == 2  # in vain to try again


def test_an_address_without_the_service(fake):
    fake.faults = [status(404)]
    with pytest.raises(CxrError, match=r"a search failed \(the server answered with status 404\); give the address"):
        Server(fake.url).instances(ALL)


@pytest.mark.parametrize(
    "answered",
    [b"<html>", b"17", b"[17]", b"[{}]", b'[{"0020000D": {"Value": ["../.."]}}]', b'{"error": "no"}', b"[", b"\xff"],
)
def test_half_broken_answers_to_a_search_are_told(fake, answered):
    fake.faults = [lambda handler: (handler.answer(200, answered, "application/dicom+json"), True)[1]]
    with pytest.raises(CxrError, match=r"a search failed \(the server's answer") as error:
        Server(fake.url).instances(ALL)
    assert "html" not in str(error.value)


def test_nothing_of_a_patient_or_a_password_is_logged(fake, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(connection.USERNAME, "reader")
    monkeypatch.setenv(connection.PASSWORD, "SECRETWORD")
    server = Server(fake.url)
    server.instances(read_query("PatientID: '0012'"))
    Delivery(MODEL, server)([radiograph(PatientID="0012")], rows(answer()))
    ours = "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith("urllib3"))
    assert "SECRETWORD" not in caplog.text and "0012" not in ours and "ller" not in ours
