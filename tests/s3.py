"""An S3 server on this machine (moto), behind a proxy that notes requests and fails as it is told."""

import http.client
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from cxr.common import remote

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key-of-a-test",
    "AWS_SECRET_ACCESS_KEY": "secret-of-a-test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # or a search for credentials would ask the network
    "AWS_CONFIG_FILE": "none",
    "AWS_SHARED_CREDENTIALS_FILE": "none",
}
NAME = "xrays"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_OWN = ("connection", "date", "server", "transfer-encoding")  # headers that the proxy sets itself
_BUSY = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"


class Proxy(ThreadingHTTPServer):
    """Passes requests on to `upstream`.

    Attributes:
        requests: method and path of all requests, in order.
        cuts: each ends the connection after so many bytes of the content of an object.
        always: the same, for every object.
        busy: number of requests that are answered with status 503.
        denied: whether all are answered with 403.
    """

    daemon_threads = True

    def __init__(self, upstream: str):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.requests: list[str] = []
        self.cuts: list[int] = []
        self.always: int | None = None
        self.busy, self.denied = 0, False
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def cut(self) -> int | None:
        """Where to end this response, if at all."""
        with self._lock:
            return self.cuts.pop(0) if self.cuts else self.always

    def handle_error(self, request, client_address):
        """Callers that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        server.requests.append(f"{self.command} {unquote(parts.path)}")
        if server.denied or server.busy > 0:
            server.busy -= not server.denied
            self._answer(403 if server.denied else 503, [], _DENIED if server.denied else _BUSY)
            return
        connection = http.client.HTTPConnection(server.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            content = response.read()
            headers = [
                pair for pair in response.getheaders() if pair[0].lower() not in ("connection", "date", "server")
            ]
            is_object = self.command == "GET" and not parts.query and response.status in (200, 206)
            self._answer(response.status, headers, content, server.cut() if is_object else None)
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers) and status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:cut])
        if cut is not None and cut < len(content):
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def log_message(self, *_: object) -> None:
        """Nothing: the proxy notes the requests."""


@dataclass
class Bucket:
    """A bucket of the server, with a client that is not the one under test."""

    proxy: Proxy
    url: str = f"s3://{NAME}"

    def put(self, name: str, data: bytes) -> str:
        """Store an object; returns its URL."""
        self._asked("PUT", name, data)
        return f"{self.url}/{name}"

    def get(self, name: str) -> bytes:
        return self._asked("GET", name)

    def put_tree(self, folder: Path, prefix: str) -> str:
        """Store all files below a folder; returns the URL of the prefix."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(f"{prefix}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return f"{self.url}/{prefix}"

    def keys(self, prefix: str = "") -> list[str]:
        """Names of all objects below a prefix."""
        text = self._asked("GET", f"?list-type=2&prefix={prefix}").decode()
        return [part.partition("</Key>")[0] for part in text.split("<Key>")[1:]]

    def reads(self) -> list[str]:
        """Names of the objects whose content was asked for through the proxy."""
        start = f"GET /{NAME}/"
        return [line.removeprefix(start) for line in self.proxy.requests if line.startswith(start) and line != start]

    def _asked(self, method: str, name: str, data: bytes = b"") -> bytes:
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=30)
        # moto learns from a signature that S3 is meant, and does not check it.
        signed = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        connection.request(method, f"/{NAME}/{name}", data, {"Authorization": signed})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        assert response.status < 300, content
        return content


@contextmanager
def running_proxy() -> Iterator[Proxy]:
    """A server with its proxy; both end with the block."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = Proxy(f"http://{host}:{port}")
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.stop()


@contextmanager
def emptied(proxy: Proxy, patch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, and the environment in which this process and those it starts find it."""
    proxy.requests, proxy.cuts, proxy.always, proxy.busy, proxy.denied = [], [], None, 0, False
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": proxy.url}.items():
        patch.setenv(name, value)
    patch.delenv("AWS_PROFILE", raising=False)
    patch.setattr(remote, "WAIT_S", 0.01)
    bucket = Bucket(proxy)
    _reset(proxy.upstream)
    bucket._asked("PUT", "")
    remote._file_system.cache_clear()
    remote.take_retries()
    yield bucket
    remote._file_system.cache_clear()
    remote.take_retries()


def _reset(upstream: str) -> None:
    connection = http.client.HTTPConnection(upstream, timeout=30)
    connection.request("POST", "/moto-api/reset")
    assert connection.getresponse().status == 200
    connection.close()
