"""Real servers for tests: MLflow's application in uvicorn, with a network that can be broken and slowed down."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from bench.serve import save_model
from tests.helpers import CLASSES, Deployed, free_port, wait_for

# MLflow's application, whose network fails while there is a file `broken`, and waits while there is a file `slow`.
APPLICATION = """
import sys
import time
from pathlib import Path
from mlflow.pyfunc.scoring_server.app import app

session = sys.modules["cxr.serving.session"].Session
plain = session.run

def run(self, rasters):
    Path("running").touch()
    while Path("slow").exists():
        time.sleep(0.05)
    if Path("broken").exists():
        raise RuntimeError("a secret of the machine")
    return plain(self, rasters)

session.run = run
"""
BREAKABLE, PLAIN = "breakable:app", "mlflow.pyfunc.scoring_server.app:app"


@dataclass(frozen=True)
class Server:
    """A running server: its folder, its port and its process."""

    folder: Path
    port: int
    process: subprocess.Popen

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> requests.Response:
        return requests.get(self.root + path, timeout=60)

    def ask(self, body: object) -> requests.Response:
        return requests.post(f"{self.root}/invocations", json=body, timeout=60)

    def send_picture(self, data: bytes, query: str = "", **headers: str) -> requests.Response:
        headers = {"Content-Type": "image/png", **headers}
        return requests.post(f"{self.root}/invocations{query}", data=data, headers=headers, timeout=60)

    def metric(self, line: str) -> float:
        found = [text for text in self.get("/metrics").text.splitlines() if text.startswith(f"{line} ")]
        return float(found[0].split()[-1])

    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def lines(self, start: int = 0) -> list[dict]:
        """The lines of JSON among those of the log."""
        return [json.loads(line) for line in self.log()[start:].splitlines() if line.startswith("{")]

    def send(self, data: bytes) -> bytes:
        """Send bytes, close our half of the connection, and return what comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def is_listening(self, workers: int) -> bool:
        """Whether so many processes of it have started."""
        return self.log().count("startup complete") == workers and "running on" in self.log()

    def stop(self) -> int:
        """Send SIGTERM, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def save(served: Deployed, folder: Path) -> Path:
    """A model as the registry holds it, as version 7, that takes bodies of at most 200,000 bytes."""
    config = json.loads((served.folder / "service.json").read_text())
    for file in served.folder.iterdir():
        (folder / "service").mkdir(exist_ok=True)
        (folder / "service" / file.name).write_bytes(file.read_bytes())
    config["limits"]["max_request_bytes"] = 200_000
    (folder / "service/service.json").write_text(json.dumps(config))
    model = save_model(folder / "service", folder / "model", CLASSES)
    (model / "registered_model_meta").write_text("model_name: cxr-pneumonia\nmodel_version: '7'\n")
    (folder / "breakable.py").write_text(APPLICATION)
    return model


@contextmanager
def running(model: Path, application: str = PLAIN, workers: int = 1, **environment: str) -> Iterator[Server]:
    """A server of a saved model, as `mlflow models serve` starts it, from its first answer on."""
    folder = model.parent
    port = free_port()
    environment = {**os.environ, "__pyfunc_model_path__": str(model), **environment}
    words = [sys.executable, "-m", "uvicorn", "--port", str(port), "--workers", str(workers), application]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=log)
    made = Server(folder, port, process)
    try:
        wait_for(lambda: made.is_listening(workers) or process.poll() is not None, 240)
        assert process.poll() is None, made.log()
        yield made
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
