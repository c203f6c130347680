"""A server with five radiographs, and short waits between tries."""

import pytest

from cxr.archive import connection
from tests.cxr.archive.fake_server import serving
from tests.cxr.archive.made import radiograph


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch):
    for name in (connection.USERNAME, connection.PASSWORD, connection.TOKEN):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(connection, "WAIT_S", 0.01)


@pytest.fixture
def fake():
    with serving(*(radiograph(number) for number in range(1, 6))) as server:
        yield server
