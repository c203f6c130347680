"""Redirects of a DICOMweb server: told, never followed, and no more of them is read than needed."""

import threading

import pytest

from cxr.archive.delivery import Delivery
from cxr.archive.dicomweb import Server
from cxr.archive.query import read_query
from cxr.errors import CxrError
from tests.cxr.archive.fake_server import Fault, serving, status
from tests.cxr.archive.made import MODEL, SERIES, STUDY, answer, radiograph, rows

QUERY = read_query("PatientID: SECRET-17")


def redirect(location: str, code: int = 302) -> Fault:
    def fault(handler) -> bool:
        handler.send_response(code)
        handler.send_header("Location", location.replace("PATH", handler.path))
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return fault


@pytest.mark.parametrize(
    ("location", "told"),
    [
        (
            "https://archive:8443PATH",
            "to https://archive:8443/dicom-web, and redirects are not followed; if that",
        ),
        ("https://archive/new/dicom-web/instances?x=SECRET", "to https://archive/new/dicom-web, and"),
        ("https://reader:SECRET@archivePATH", "to https://archive/dicom-web, and"),
        ("//archivePATH", "to http://archive/dicom-web, and"),
        ("https://login/SECRET?from=PATH", "to https://login, and .*; give the address of the service itself, and set"),
        ("https://archive/;session=SECRET/instances", "to https://archive, and"),
        ("ftp://archive/SECRET", "to no address, and redirects are not followed; give the address of the service"),
        ("http://[SECRET", "to no address"),
        ("http://\x1b[31mSECRET/", "to no address"),
    ],
)
@pytest.mark.parametrize("code", [301, 303, 307])
def test_a_redirect_is_told_without_secrets(fake, location, told, code):
    fake.faults = [redirect(location, code)]
    with pytest.raises(CxrError, match=rf"^{fake.url}: redirects {told}") as error:
        Server(fake.url).instances(QUERY)
    assert "SECRET" not in str(error.value) and "\x1b" not in str(error.value) and len(fake.requests) == 1


def test_no_request_follows_a_redirect(fake):
    """Not even one that would find all it asks for: a result holds the name of a patient."""
    with serving(radiograph(1)) as other:
        fake.faults = [redirect(f"http://127.0.0.1:{other.server_port}PATH", 307)]
        server = Server(fake.url)
        calls = (
            lambda: server.instances(QUERY),
            lambda: server.read(server.path(STUDY, SERIES, f"{SERIES}.1"), 20_000_000),
            lambda: Delivery(MODEL, server)([radiograph()], rows(answer())),
        )
        for call in calls:
            with pytest.raises(CxrError, match=f"redirects to {other.url}, and redirects are not followed"):
                call()
        fake.faults = [lambda h: h.command == "POST" and redirect(f"http://127.0.0.1:{other.server_port}PATH")(h)]
        with pytest.raises(CxrError, match=f"redirects to {other.url}"):
            Delivery(MODEL, server)([radiograph()], rows(answer()))
        assert other.requests == []


def test_the_body_of_a_redirect_is_not_read(fake):
    ended, parts = threading.Event(), 1024

    def large(handler) -> bool:
        handler.send_response(302)
        handler.send_header("Location", "https://archive/dicom-web/instances")
        handler.send_header("Content-Length", str(parts * 65536))
        handler.end_headers()
        try:
            for _ in range(parts):
                handler.wfile.write(b"\0" * 65536)
        except OSError:
            ended.set()
        return True

    fake.faults = [large]
    with pytest.raises(CxrError, match="redirects to https://archive/dicom-web"):
        Server(fake.url).instances(QUERY)
    assert ended.wait(10)  # the connection was closed long before its end


@pytest.mark.parametrize("code", [300, 302, 304])
def test_a_redirect_to_nowhere_is_no_search_without_matches(fake, code):
    fake.faults = [status(code)]
    with pytest.raises(CxrError, match=rf"a search failed \(the server answered with status {code}\)"):
        Server(fake.url).instances(QUERY)
