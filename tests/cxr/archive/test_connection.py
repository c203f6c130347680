"""Addresses and credentials: what is allowed, and that no secret is ever repeated."""

import pytest
import requests

from cxr.archive import connection
from cxr.archive.connection import AnswerError, asked, check_address, session
from cxr.archive.query import read_query, searches_of
from cxr.errors import CxrError
from tests.cxr.archive.fake_server import serving
from tests.cxr.archive.made import radiograph


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://reader:SECRET@127.0.0.1/dicom-web", "the address holds an @, and so a user or a password"),
        ("https://SECRET@archive/dicom-web", "DICOMWEB_USERNAME and DICOMWEB_PASSWORD, or DICOMWEB_TOKEN"),
        ("http://:SECRET@archive", "change the password"),
        ("reader:SECRET@archive:8042/dicom-web", "change the password"),
        ("http:reader:SECRET@archive/dicom-web", "change the password"),
        ("//reader:SECRET@archive", "change the password"),
        ("http://reader:12/SECRET@archive/dicom-web", "change the password"),
        ("http://archive/tenant@SECRET", "an @ in a path is written %40"),
        ("http://archive/dicom-web?token=SECRET", "more than a path"),
        ("archive:8042/dicom-web?token=SECRET", "more than a path"),
        ("archive/dicom-web#SECRET", "more than a path"),
        ("archive:8042", "not an address; expected one like http"),
        ("ftp://archive/", "not an address"),
        ("http://", "not an address"),
        ("http://[::1", "not an address"),
        ("http://archive:port/", "not an address"),
    ],
)
def test_addresses_that_are_refused(url, words):
    with pytest.raises(CxrError, match=words) as error:
        check_address(url)
    assert "SECRET" not in str(error.value)


def test_an_address_loses_its_last_slash():
    assert check_address("https://archive:8042/dicom-web/") == "https://archive:8042/dicom-web"
    assert check_address("https://archive/tenant%40site/") == "https://archive/tenant%40site"


def header_of(environment: dict[str, str]) -> str | None:
    """The header that a request with these credentials carries."""
    with serving(radiograph()) as server:
        seen = []
        server.faults = [lambda handler: seen.append(handler.headers["Authorization"])]
        session(server.url, environment).get(f"{server.url}/instances")
    return seen[0]


def test_credentials_come_from_the_environment():
    assert header_of({}) is None
    assert header_of({connection.USERNAME: "reader", connection.PASSWORD: "secret"}) == "Basic cmVhZGVyOnNlY3JldA=="
    assert header_of({connection.TOKEN: "abc"}) == "Bearer abc"
    # In UTF-8, whatever the letters.
    assert header_of({connection.USERNAME: "Jürgen", connection.PASSWORD: "€"}) == "Basic SsO8cmdlbjrigqw="


def test_credentials_in_the_home_folder_are_not_taken(tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login reader password secret")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    assert requests.utils.get_netrc_auth("http://127.0.0.1/") == ("reader", "secret")
    assert header_of({}) is None
    assert header_of({connection.TOKEN: "abc"}) == "Bearer abc"


def test_proxies_of_the_environment_are_used(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(radiograph()) as proxy:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        session("http://archive.example", {}).get("http://archive.example/dicom-web/instances")
    assert proxy.requests == ["GET http://archive.example/dicom-web/instances"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({connection.USERNAME: "reader"}, "DICOMWEB_USERNAME is set, but DICOMWEB_PASSWORD is not; set both"),
        ({connection.PASSWORD: "SECRET"}, "DICOMWEB_PASSWORD is set, but DICOMWEB_USERNAME is not"),
        ({connection.TOKEN: "SECRET", connection.USERNAME: "reader"}, "both set; set one kind"),
        ({connection.TOKEN: "SECRET\n"}, "DICOMWEB_TOKEN holds a letter or a line end that no header can carry"),
        ({connection.TOKEN: "SECRET€"}, "DICOMWEB_TOKEN holds a letter or a line end"),
    ],
)
def test_credentials_that_cannot_be_used_are_refused(environment, words):
    with pytest.raises(CxrError, match=words) as error:
        session("http://127.0.0.1", environment)
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "warned"), [("http://archive/", True), ("https://archive/", False), ("http://127.0.0.1:1/", False)]
)
def test_credentials_in_clear_are_warned_of(caplog, url, warned):
    session(url, {connection.TOKEN: "abc"})
    assert ("unencrypted" in caplog.text) == warned and "abc" not in caplog.text


def test_surprises_of_libraries_are_told_without_their_words():
    def call():
        raise KeyError("PATIENT^NAME")

    with pytest.raises(AnswerError, match=r"cannot be read \(KeyError\)") as error:
        asked("http://archive", call)
    assert "PATIENT" not in str(error.value)


def test_queries():
    assert read_query("") == {"Modality": ["CR", "DX"]}
    query = read_query("{Modality: DX, PatientID: 0012, StudyDate: 20261101-20261128, StudyInstanceUID: [1.2, 1.3]}")
    assert query == {
        "Modality": ["DX"],
        "PatientID": ["0012"],
        "StudyDate": ["20261101-20261128"],
        "StudyInstanceUID": ["1.2", "1.3"],
    }
    assert [one["StudyInstanceUID"] for one in searches_of(query)] == ["1.2", "1.3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{Modality: DX", "not valid YAML"),
        ("[Modality]", "expected pairs like"),
        ("Modality", "expected pairs like"),
        ("{Modalty: DX}", "'Modalty' is no keyword of DICOM; did you mean 'Modality'"),
        ("{00080060: DX}", "is no keyword of DICOM"),
        ("{PatientID: }", "PatientID needs a value"),
        ("{PatientID: [[a]]}", "PatientID needs a value"),
        ("{PatientID: {a: b}}", "PatientID needs a value"),
        ("{PatientID: [" + ",".join(map(str, range(51))) + "]}", "come to 102 searches; at most 100"),
        ("{a: !!python/object:os.system x}", "is no keyword"),
    ],
)
def test_queries_that_are_refused(text, words):
    with pytest.raises(CxrError, match=words):
        read_query(text)
