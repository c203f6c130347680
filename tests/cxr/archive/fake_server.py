"""A small DICOMweb server in memory that fails as it is told: by its network, by a status, by an odd answer."""

import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pydicom

Fault = Callable[["Handler"], bool]  # answers the request itself and returns True, or leaves it to the server
BOUNDARY = "part-of-a-fake"
_NAMES = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")
_INSTANCE = re.compile(r".*/studies/([^/]+)/series/([^/]+)/instances/([^/]+)$")
_SERIES = re.compile(r".*/studies/([^/]+)/series/([^/]+)/instances$")


class FakeServer(ThreadingHTTPServer):
    """An archive of instances, by their SOP Instance UID.

    Attributes:
        faults: asked in turn before a request is answered.
        page: largest number of entries in an answer to a search; 0: all, whatever page is asked for.
        requests: method and path of all requests, in order.
        credentials: value of the header that lets a caller in; empty: everybody.
    """

    daemon_threads = True

    def __init__(self, *instances: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.archive: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.page = 3
        self.requests: list[str] = []
        self.credentials = ""
        self.put(*instances)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dicom-web"

    def put(self, *instances: bytes) -> None:
        for data in instances:
            self.archive[str(read(data).SOPInstanceUID)] = data

    def modalities(self) -> list[str]:
        """What the archive holds."""
        return sorted(str(read(data).Modality) for data in self.archive.values())

    def handle_error(self, request, client_address):
        """Callers that go away are part of the tests."""


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)


class Handler(BaseHTTPRequestHandler):
    """Searches, retrieves and stores.

    Attributes:
        sent: the instances in a request to store.
    """

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self._fault():
            return
        address = urlsplit(self.path)
        if match := _INSTANCE.match(address.path):
            self._retrieve(match[3])
        elif match := _SERIES.match(address.path):
            self._search({"StudyInstanceUID": match[1], "SeriesInstanceUID": match[2]}, address.query)
        elif address.path.endswith("/instances"):
            self._search({}, address.query)
        else:
            self.answer(404)

    def do_POST(self):
        parts = self.rfile.read(int(self.headers["Content-Length"])).split(b"--0f3cf5c0")[1:-1]
        self.sent = [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts]
        if self._fault():
            return
        self.server.put(*self.sent)
        self.json({"00081199": {"vr": "SQ", "Value": self.references()}})

    def references(self, **elements) -> list[dict]:
        """Items for an answer, one for each instance that was sent."""
        names = [str(read(data).SOPInstanceUID) for data in self.sent]
        return [{"00081155": {"vr": "UI", "Value": [name]}} | elements for name in names]

    def _fault(self) -> bool:
        self.server.requests.append(f"{self.command} {self.path}")
        if self.server.credentials and self.headers["Authorization"] != self.server.credentials:
            self.answer(401)
            return True
        return any(fault(self) for fault in list(self.server.faults))

    def _retrieve(self, instance: str) -> None:
        if instance in self.server.archive:
            self.multipart(self.server.archive[instance])
        else:
            self.answer(404)

    def _search(self, known: dict[str, str], query: str) -> None:
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        limit, offset = int(asked.pop("limit", 100)), int(asked.pop("offset", 0))
        asked.pop("includefield", None)
        headers = [read(self.server.archive[name]) for name in sorted(self.server.archive)]
        found = [h for h in headers if all(str(h.get(n, "")) == v for n, v in (known | asked).items())]
        if self.server.page:
            found = found[offset : offset + min(limit, self.server.page)]
        self.json([{f"{h[n].tag:08X}": {"vr": h[n].VR, "Value": [str(h[n].value)]} for n in _NAMES} for h in found])

    def multipart(self, data: bytes) -> None:
        body = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + data
        body += f"\r\n--{BOUNDARY}--\r\n".encode()
        self.answer(200, body, f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"')

    def json(self, values: object, status: int = 200) -> None:
        self.answer(status, json.dumps(values).encode(), "application/dicom+json")

    def answer(self, status: int, body: bytes = b"", kind: str = "text/plain", length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Quiet."""


@contextmanager
def serving(*instances: bytes) -> Iterator[FakeServer]:
    """A server on a free port of this machine."""
    with FakeServer(*instances) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def times(count: int, fault: Fault) -> Fault:
    """A fault of the first requests only."""
    left = [count]

    def some(handler: Handler) -> bool:
        if not left[0]:
            return False
        left[0] -= 1
        return fault(handler)

    return some


def status(code: int, what: str = "") -> Fault:
    """An answer with a status, to requests whose method and path hold `what`."""

    def fault(handler: Handler) -> bool:
        if what not in f"{handler.command} {handler.path}":
            return False
        handler.answer(code)
        return True

    return fault


def hang_up(handler: Handler) -> bool:
    """Close the connection without a word."""
    handler.close_connection = True
    handler.connection.close()
    return True
