"""TLS and proxies: what is verified, and that each fault is told by the variable or address that mends it."""

import datetime
import ipaddress
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cxr.archive.connection import session
from cxr.archive.dicomweb import Server
from cxr.archive.query import read_query
from cxr.errors import CxrError

ALL = read_query("")


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate for 127.0.0.1, signed by itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "archive of the tests")])
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    signed = made.add_extension(host, critical=False).sign(key, hashes.SHA256())
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, form, serialization.NoEncryption()))
    return file


@pytest.fixture
def secure(fake, certificate):
    """Address of a server with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    fake.socket = context.wrap_socket(fake.socket, server_side=True)
    return fake.url.replace("http://", "https://")


def test_certificates_are_verified(secure, certificate, fake, monkeypatch):
    """A server with a certificate of its own making; the error names the variable that can name its authority."""
    with pytest.raises(CxrError, match="certificate cannot be verified; name the file.*REQUESTS_CA_BUNDLE"):
        Server(secure).instances(ALL)
    assert fake.requests == []
    for name in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, str(certificate))
            assert len(Server(secure).instances(ALL)) == 5


def test_a_certificate_for_another_host_is_refused(secure, certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with pytest.raises(CxrError, match="certificate cannot be verified"):
        Server(secure.replace("127.0.0.1", "localhost")).instances(ALL)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_authorities_that_cannot_be_read_are_told(tmp_path, name):
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.write_text("")
    with pytest.raises(
        CxrError, match=rf"^{name}={missing}: No such file or directory; name the file of your authority"
    ):
        session("https://archive", {name: str(missing)})
    with pytest.raises(CxrError, match=rf"^{name}={empty}: no certificates in PEM; name the file"):
        session("https://archive", {name: str(empty)})
    session("https://archive", {name: str(tmp_path)})  # a folder of certificates
    session("http://archive", {name: str(missing)})  # which asks for none


def test_a_server_without_tls_is_not_told_as_one_that_cannot_be_trusted(fake):
    url = fake.url.replace("http://", "https://")
    words = r"no TLS connection \(wrong version number, 5 tries\); give http:// if the server has no TLS"
    with pytest.raises(CxrError, match=words):
        Server(url).instances(ALL)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_told(monkeypatch, scheme):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        proxy = f"http://reader:SECRET@127.0.0.1:{free.getsockname()[1]}"
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    words = r"cannot be reached through a proxy \(Connection refused, 5 tries\); check HTTP_PROXY, HTTPS_PROXY"
    with pytest.raises(CxrError, match=words) as error:
        Server(f"{scheme}://archive.example/dicom-web").instances(ALL)
    assert "SECRET" not in str(error.value)
