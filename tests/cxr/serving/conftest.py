"""The application of the server in this process."""

from collections.abc import Callable, Iterator

import pytest

from tests.cxr.serving.application import Application, Told, applications


@pytest.fixture
def make(monkeypatch) -> Iterator[Callable[..., Application]]:
    """Makes the application of a service."""
    with applications(monkeypatch) as made:
        yield made


@pytest.fixture
def service() -> Told:
    return Told()


@pytest.fixture
def app(make, service) -> Application:
    return make(service).start()
