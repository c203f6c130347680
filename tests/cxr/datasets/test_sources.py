"""Downloads against a server on 127.0.0.1: once, resumed, checked; and the other sources."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cxr.datasets import sources
from cxr.errors import CxrError
from cxr.settings.schema import DataSettings
from tests.helpers import settings_with


def packed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(40):
            file.writestr(f"train/NORMAL/IM-{number}-1.jpeg", hashlib.sha256(bytes([number])).digest() * 200)
    return buffer.getvalue()


CONTENT = packed()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any path but /missing.zip; `cuts` answers break off after that many bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.cuts: list[int] = []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path == "/missing.zip":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def settings(tmp_path, path, **more) -> DataSettings:
    given = {"path": str(path), "cache_dir": str(tmp_path / "cache"), **more}
    return settings_with({f"data.{name}": value for name, value in given.items()}).data


def test_a_zip_is_downloaded_once(server, tmp_path):
    data = settings(tmp_path, f"{server.address}/set.zip", sha256=SHA256)
    first = sources.fetch(data, 0)
    assert len(list(first.root.rglob("*.jpeg"))) == 40
    assert first.description["sha256"] == SHA256
    assert sources.fetch(data, 0).root == first.root
    assert len(server.asked) == 1


def test_a_connection_that_breaks_is_gone_on_with(server, tmp_path):
    server.cuts = [50_000, 60_000]
    source = sources.fetch(settings(tmp_path, f"{server.address}/set.zip", sha256=SHA256), 0)
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.asked[1:]]
    assert server.asked[0] is None
    assert 50_000 - sources.CHUNK < starts[0] <= 50_000
    assert 60_000 - sources.CHUNK < starts[1] - starts[0] <= 60_000
    assert len(list(source.root.rglob("*.jpeg"))) == 40


def test_a_download_goes_on_where_an_earlier_command_stopped(server, tmp_path):
    server.cuts = [40_000, 40_000, 40_000]
    data = settings(tmp_path, f"{server.address}/set.zip", sha256=SHA256)
    with pytest.raises(CxrError, match=r"could not be downloaded .* try again: it goes on"):
        sources.fetch(data, 0)
    sources.fetch(data, 0)
    assert int(server.asked[-1].removeprefix("bytes=").rstrip("-")) > 3 * (40_000 - sources.CHUNK)
    assert len(server.asked) == 4


def test_a_wrong_checksum_keeps_nothing(server, tmp_path):
    with pytest.raises(CxrError, match=f"has SHA-256 {SHA256}, wanted is {'0' * 64}"):
        sources.fetch(settings(tmp_path, f"{server.address}/set.zip", sha256="0" * 64), 0)
    assert not [f for f in (tmp_path / "cache").rglob("*") if f.is_file()]


def test_an_address_that_has_nothing(server, tmp_path):
    with pytest.raises(CxrError, match="the server answered 404"):
        sources.fetch(settings(tmp_path, f"{server.address}/missing.zip"), 0)


def test_a_password_in_an_address_is_not_repeated(server, tmp_path):
    address = server.address.replace("//", "//user:secret@")
    source = sources.fetch(settings(tmp_path, f"{address}/set.zip"), 0)
    assert "secret" not in str(source.description)
    with pytest.raises(CxrError) as caught:
        sources.fetch(settings(tmp_path, f"{address}/missing.zip"), 0)
    assert "secret" not in str(caught.value)


def test_mendeley_is_asked_for_with_its_own_checksum(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MENDELEY", f"{server.address}/file_downloaded")
    with pytest.raises(CxrError, match=f"wanted is {sources.MENDELEY_SHA256}"):
        sources.fetch(settings(tmp_path, "mendeley"), 0)
    monkeypatch.setattr(sources, "MENDELEY_SHA256", SHA256)
    source = sources.fetch(settings(tmp_path, "mendeley"), 0)
    assert "CC BY 4.0" in source.description["citation"]


def test_a_zip_on_disk_and_its_checksum(tmp_path):
    (tmp_path / "set.zip").write_bytes(CONTENT)
    assert sources.fetch(settings(tmp_path, tmp_path / "set.zip", sha256=SHA256), 0).description["kind"] == "zip"
    with pytest.raises(CxrError, match=r"data\.sha256 is 1{64}"):
        sources.fetch(settings(tmp_path, tmp_path / "set.zip", sha256="1" * 64), 0)


def test_what_is_neither_folder_nor_zip(tmp_path):
    with pytest.raises(CxrError, match="does not exist; give a folder"):
        sources.fetch(settings(tmp_path, tmp_path / "none"), 0)
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(CxrError, match="is neither a folder nor a"):
        sources.fetch(settings(tmp_path, tmp_path / "x.txt"), 0)


def test_a_cache_that_cannot_be_made(tmp_path):
    (tmp_path / "cache").write_text("a file")
    for path in ("sample", "http://127.0.0.1:9/set.zip"):
        with pytest.raises(CxrError, match=r"cache folder .*data\.cache_dir"):
            sources.fetch(settings(tmp_path, path), 0)
