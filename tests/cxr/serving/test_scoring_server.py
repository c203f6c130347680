"""MLflow's own server with our model in it: faults are ours and logged, clients that go away cost nothing."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from bench.serve import save_model
from cxr.serving.service import columns
from tests.helpers import CLASSES, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*input example")]
# MLflow's application, whose network fails while there is a file of that name.
APPLICATION = """
import sys
from pathlib import Path
from mlflow.pyfunc.scoring_server.app import app

session = sys.modules["cxr.serving.session"].Session
plain = session.run

def run(self, rasters):
    if Path("broken").exists():
        raise RuntimeError("a secret of the machine")
    return plain(self, rasters)

session.run = run
"""


@dataclass(frozen=True)
class Server:
    """A running server, its folder and its port."""

    folder: Path
    port: int

    def ask(self, body: object) -> requests.Response:
        return requests.post(f"http://127.0.0.1:{self.port}/invocations", json=body, timeout=60)

    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def send(self, data: bytes) -> bytes:
        """Send bytes, close our half of the connection, and return what comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture(scope="module")
def server(served, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    limits = json.loads((served.folder / "service.json").read_text())
    for file in served.folder.iterdir():
        (folder / "service").mkdir(exist_ok=True)
        (folder / "service" / file.name).write_bytes(file.read_bytes())
    limits["limits"]["max_request_bytes"] = 200_000
    (folder / "service/service.json").write_text(json.dumps(limits))
    save_model(folder / "service", folder / "model", CLASSES)
    (folder / "breakable.py").write_text(APPLICATION)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "__pyfunc_model_path__": str(folder / "model")}
    words = [sys.executable, "-m", "uvicorn", "--port", str(port), "breakable:app"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)
    made = Server(folder, port)
    try:
        wait_for(lambda: "running on" in made.log() or process.poll() is not None)
        assert process.poll() is None, made.log()
        yield made
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def body(served) -> dict:
    picture = served.manifest.split("val").files()[0].read_bytes()
    return {"dataframe_records": [{"image": base64.b64encode(picture).decode()}]}


def test_a_fault_of_the_model_has_status_500_and_its_trace_is_in_the_log_only(server, body):
    assert server.ask(body).status_code == 200
    before = len(server.log())
    (server.folder / "broken").touch()
    try:
        response = server.ask(body)
    finally:
        (server.folder / "broken").unlink()
    assert response.status_code == 500
    line = response.json()["message"]
    assert re.fullmatch(r"internal error, reference [0-9a-f]{8} in the log of the server", line)
    log = server.log()[before:]
    assert line.split(" in the log")[0] in log
    assert log.count("Traceback") == 1 and "RuntimeError: a secret of the machine" in log
    assert body["dataframe_records"][0]["image"][:100] not in log
    assert server.ask(body).status_code == 200


def test_a_client_that_goes_away_leaves_no_trace(server, body):
    text = json.dumps(body).encode()
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    before = len(server.log())
    for sent in (
        head + b"Content-Length: %d\r\n\r\n" % len(text) + text[:-10],
        head + b"Content-Length: %d\r\n\r\n" % len(text),
        head + b"Transfer-Encoding: chunked\r\n\r\n1000\r\nabc",
        head,
        b"POST /invoc",
    ):
        for _ in range(10):
            server.send(sent)
    assert list(server.ask(body).json()["predictions"][0]) == columns(CLASSES, "pneumonia")
    lines = server.log()[before:].splitlines()
    assert len(lines) <= 51 and not [line for line in lines if "Traceback" in line or "ERROR" in line]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_gets_413(server, body, chunked):
    text = (json.dumps(body) + " " * 200_000).encode()
    address = f"http://127.0.0.1:{server.port}/invocations"
    parts = iter([text[:150_000], text[150_000:]])
    response = requests.post(
        address, data=parts if chunked else text, headers={"Content-Type": "application/json"}, timeout=60
    )
    assert response.status_code == 413
    assert response.json()["message"] == "more than 200,000 bytes in one request; send fewer images"
    started = time.monotonic()
    assert server.ask(body).status_code == 200 and time.monotonic() - started < 30
