"""Downloads from a server on 127.0.0.1 are cached, resumed and verified; other sources are read or refused."""

import hashlib
import io
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cxr.common.locks import alone
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
    """Serves `contents` by path, else CONTENT, but not /missing.zip; each of `cuts` ends one response early.

    `redirects` lead from paths to addresses.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.cuts: list[int] = []
        self.contents: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        byte_range = self.headers.get("Range")
        self.server.ranges.append(byte_range)
        if self.path == "/missing.zip":
            self.send_error(404)
            return
        if self.path in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = self.server.contents.get(self.path, CONTENT)
        start = int(byte_range.removeprefix("bytes=").rstrip("-")) if byte_range else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if byte_range else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start:end])

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
    assert len(server.ranges) == 1


def test_two_downloads_of_one_address_at_once_are_one_download(server, tmp_path):
    data = settings(tmp_path, f"{server.address}/set.zip", sha256=SHA256)
    with ThreadPoolExecutor(4) as pool:
        roots = {source.root for source in pool.map(lambda _: sources.fetch(data, 0), range(4))}
    assert len(roots) == len(server.ranges) == 1


def test_clear_waits_for_a_download_and_removes_everything(server, tmp_path):
    data = settings(tmp_path, f"{server.address}/set.zip", sha256=SHA256)
    sources.fetch(data, 0)
    cache = tmp_path / "cache"
    lock = next(cache.glob("downloads/.*.lock"))
    with ThreadPoolExecutor(1) as pool:
        with alone(lock):
            clearing = pool.submit(sources.clear, data)
            time.sleep(0.3)
            assert not clearing.done() and list(cache.glob("downloads/*.zip"))
        assert clearing.result(timeout=10) > len(CONTENT)
    assert not list(cache.iterdir())


def test_a_download_resumes_after_a_broken_connection(server, tmp_path):
    server.cuts = [50_000, 60_000]
    source = sources.fetch(settings(tmp_path, f"{server.address}/set.zip", sha256=SHA256), 0)
    starts = [int(byte_range.removeprefix("bytes=").rstrip("-")) for byte_range in server.ranges[1:]]
    assert server.ranges[0] is None
    assert 50_000 - sources.CHUNK < starts[0] <= 50_000
    assert 60_000 - sources.CHUNK < starts[1] - starts[0] <= 60_000
    assert len(list(source.root.rglob("*.jpeg"))) == 40


def test_a_second_command_resumes_a_failed_download(server, tmp_path):
    server.cuts = [40_000, 40_000, 40_000]
    data = settings(tmp_path, f"{server.address}/set.zip", sha256=SHA256)
    with pytest.raises(CxrError, match=r"could not be downloaded .* try again to resume"):
        sources.fetch(data, 0)
    sources.fetch(data, 0)
    assert int(server.ranges[-1].removeprefix("bytes=").rstrip("-")) > 3 * (40_000 - sources.CHUNK)
    assert len(server.ranges) == 4


def test_addresses_that_end_in_the_same_name_are_two_downloads(server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("train/NORMAL/IM-9-1.jpeg", b"another dataset")
    server.contents["/b/set.zip"] = buffer.getvalue()
    first, second = (sources.fetch(settings(tmp_path, f"{server.address}/{name}/set.zip"), 0) for name in "ab")
    assert len(list(first.root.rglob("*.jpeg"))) == 40
    assert len(list(second.root.rglob("*.jpeg"))) == 1


def test_a_damaged_download_is_fetched_again(server, tmp_path):
    address = f"{server.address}/set.zip"
    server.contents["/set.zip"] = CONTENT[: len(CONTENT) // 2]
    with pytest.raises(CxrError, match="truncated or damaged"):
        sources.fetch(settings(tmp_path, address), 0)
    del server.contents["/set.zip"]
    assert len(list(sources.fetch(settings(tmp_path, address), 0).root.rglob("*.jpeg"))) == 40


def test_a_partial_download_longer_than_the_file_is_not_taken_for_it(server, tmp_path):
    address = f"{server.address}/set.zip"
    server.contents["/set.zip"] = CONTENT + bytes(5000)
    server.cuts = [len(CONTENT) + 4000, 10, 10]
    with pytest.raises(CxrError, match="could not be downloaded"):
        sources.fetch(settings(tmp_path, address), 0)
    server.cuts.clear()
    del server.contents["/set.zip"]
    assert sources.fetch(settings(tmp_path, address), 0).description["sha256"] == SHA256


def test_a_file_with_a_wrong_checksum_is_not_kept(server, tmp_path):
    with pytest.raises(CxrError, match=f"has SHA-256 {SHA256}, expected {'0' * 64}"):
        sources.fetch(settings(tmp_path, f"{server.address}/set.zip", sha256="0" * 64), 0)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_missing_file_on_the_server_is_reported(server, tmp_path):
    with pytest.raises(CxrError, match="the server answered 404"):
        sources.fetch(settings(tmp_path, f"{server.address}/missing.zip"), 0)


@pytest.mark.parametrize(
    ("address", "proxy", "kind"),
    [
        ("http://*.org/set.zip", None, "InvalidURL"),
        ("http://user:secret@127.0.0.1:99999/set.zip", None, "InvalidURL"),
        ("http://127.0.0.1/set.zip", "http:///", "InvalidProxyURL"),
        ("SERVER/elsewhere.zip", None, "InvalidSchema"),
    ],
)
def test_an_address_that_cannot_be_used_is_not_told_as_another_checksum(
    server, tmp_path, monkeypatch, address, proxy, kind
):
    if proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("no_proxy", "")
    server.redirects["/elsewhere.zip"] = "ftp://127.0.0.1/set.zip"
    with pytest.raises(
        CxrError, match=rf"(set|elsewhere)\.zip could not be downloaded \({kind}\); correct it, or"
    ) as told:
        sources.fetch(settings(tmp_path, address.replace("SERVER", server.address)), 0)
    assert "SHA-256" not in str(told.value) and "secret" not in str(told.value)


def test_a_password_in_a_url_is_not_shown(server, tmp_path):
    address = server.address.replace("//", "//user:secret@")
    source = sources.fetch(settings(tmp_path, f"{address}/set.zip"), 0)
    assert "secret" not in str(source.description)
    with pytest.raises(CxrError) as caught:
        sources.fetch(settings(tmp_path, f"{address}/missing.zip"), 0)
    assert "secret" not in str(caught.value)


def test_mendeley_is_verified_by_its_known_checksum(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MENDELEY", f"{server.address}/file_downloaded")
    with pytest.raises(CxrError, match=f"expected {sources.MENDELEY_SHA256}"):
        sources.fetch(settings(tmp_path, "mendeley"), 0)
    monkeypatch.setattr(sources, "MENDELEY_SHA256", SHA256)
    source = sources.fetch(settings(tmp_path, "mendeley"), 0)
    assert "CC BY 4.0" in source.description["citation"]


def test_the_checksum_of_a_zip_on_disk_is_verified(tmp_path):
    (tmp_path / "set.zip").write_bytes(CONTENT)
    assert sources.fetch(settings(tmp_path, tmp_path / "set.zip", sha256=SHA256), 0).description["kind"] == "zip"
    with pytest.raises(CxrError, match=r"expected data\.sha256=1{64}"):
        sources.fetch(settings(tmp_path, tmp_path / "set.zip", sha256="1" * 64), 0)


def test_paths_that_are_neither_folder_nor_zip_are_refused(tmp_path):
    with pytest.raises(CxrError, match="does not exist; expected a folder"):
        sources.fetch(settings(tmp_path, tmp_path / "none"), 0)
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(CxrError, match="is neither a folder nor a"):
        sources.fetch(settings(tmp_path, tmp_path / "x.txt"), 0)


def test_a_cache_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "cache").write_text("a file")
    for path in ("sample", "http://127.0.0.1:9/set.zip"):
        with pytest.raises(CxrError, match=r"cache folder .*data\.cache_dir"):
            sources.fetch(settings(tmp_path, path), 0)
