"""A real archive for tests: Debian's Orthanc with its DICOMweb plugin, on a free port, with a folder of its own."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.helpers import wait_for

USER, PASSWORD = "reader", "secret-of-the-tests"
_PROGRAMS = ("/usr/sbin/Orthanc", "Orthanc")
_PLUGINS = (
    "/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
    "/usr/lib/orthanc/libOrthancDicomWeb.so.1.7",
)


@dataclass(frozen=True)
class Orthanc:
    """A running archive.

    Attributes:
        root: address of its own interface.
        process: to end it.
    """

    root: str
    process: subprocess.Popen

    @property
    def url(self) -> str:
        """Address of the DICOMweb service."""
        return f"{self.root}/dicom-web"

    def ask(self, path: str) -> object:
        return requests.get(f"{self.root}/{path}", auth=(USER, PASSWORD), timeout=10).json()

    def put(self, data: bytes) -> None:
        """Send a file, as a modality does."""
        sent = requests.post(f"{self.root}/instances", data, auth=(USER, PASSWORD), timeout=10)
        assert sent.status_code == 200, sent.text

    def files(self) -> list[bytes]:
        """All files that it holds."""
        names = self.ask("instances")
        return [
            requests.get(f"{self.root}/instances/{name}/file", auth=(USER, PASSWORD), timeout=10).content
            for name in names
        ]


@contextmanager
def running(folder: Path) -> Iterator[Orthanc]:
    """Orthanc with its data in `folder`; skips where it is not installed."""
    program = next((path for name in _PROGRAMS if (path := shutil.which(name))), None)
    plugin = next((path for path in _PLUGINS if Path(path).exists()), None)
    if program is None or plugin is None:
        pytest.skip("no Orthanc with DICOMweb; it is in Debian's packages orthanc and orthanc-dicomweb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "StorageDirectory": str(folder / "data"),
        "IndexDirectory": str(folder / "data"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [plugin],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "data").mkdir(parents=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    archive = Orthanc(f"http://127.0.0.1:{port}", process)
    try:
        wait_for(lambda: _answers(archive))
        yield archive
    finally:
        process.terminate()
        process.wait(30)


def _answers(archive: Orthanc) -> bool:
    assert archive.process.poll() is None, "Orthanc ended"
    try:
        return bool(archive.ask("system"))
    except requests.RequestException:
        return False
