"""Calls of a store that is away are tried again, and one line says so; after waiting in vain there is an error."""

import logging
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from steps.runtime import outage, runner, store
from steps.runtime.cli import Step
from tests.helpers import free_port

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


@dataclass
class Server:
    """A tracking server whose database is away for the next `away` requests."""

    uri: str = ""
    away: int = 0
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def quick(monkeypatch, caplog):
    """No waiting between two tries, and three of them after the first."""
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(RETRIES, "3")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    monkeypatch.setattr(outage, "_Outage", type("_Outage", (outage._Outage,), {}))
    outage.watch()


@pytest.fixture
def server(quick) -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            made.paths.append(self.path)
            made.away -= 1
            self.send_response(503 if made.away >= 0 else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever).start()
        made.uri = f"http://127.0.0.1:{listening.server_port}"
        mlflow.set_tracking_uri(made.uri)
        yield made
        listening.shutdown()


def told(caplog) -> list[tuple[int, str]]:
    """Level and text of what is said about the store, and of what libraries warn of."""
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == outage.__name__ or record.levelno >= logging.WARNING
    ]


def test_an_outage_is_told_once_and_its_end_too(server, caplog):
    server.away = 3
    outage.patient_client().set_tag("1", "key", "value")
    outage.patient_client().set_tag("1", "key", "value")
    assert len(server.paths) == 5
    (level, away), (_, back) = told(caplog)
    assert level == logging.WARNING
    assert away == f"the MLflow store {server.uri} does not answer (status 503); trying again for up to 0 seconds"
    assert re.fullmatch(r"the MLflow store answers again, after \d+ seconds", back)


def test_a_single_lost_connection_is_not_told(server, caplog):
    server.away = 1
    outage.patient_client().set_tag("1", "key", "value")
    assert len(server.paths) == 2 and not told(caplog)


def test_who_waits_in_vain_gets_an_error_and_waits_no_more(server, caplog):
    server.away = 5
    client = outage.patient_client()
    with pytest.raises(outage.AwayError) as error:
        client.set_tag("1", "key", "value")
    assert "has not answered for 0 seconds (too many 503 error responses); start again once it does" in str(error.value)
    assert len(server.paths) == 4
    with pytest.raises(outage.AwayError):
        client.set_tag("1", "key", "value")
    assert len(server.paths) == 5 and os.environ[RETRIES] == "0"
    client.set_tag("1", "key", "value")
    assert os.environ[RETRIES] == "3"
    assert [level for level, _ in told(caplog)] == [logging.WARNING, logging.INFO]


def test_a_server_that_is_not_there_is_told_without_a_line_for_each_try(quick, caplog):
    mlflow.set_tracking_uri(f"http://someone:secret@127.0.0.1:{free_port()}")
    with pytest.raises(outage.AwayError, match=r"//someone:\*\*\*@127.*Connection refused\); start again once it does"):
        outage.patient_client().set_tag("1", "key", "value")
    [(_, line)] = told(caplog)
    assert "Connection refused); trying again for up to" in line and "secret" not in line


def test_a_step_that_finds_no_server_fails_in_one_line(quick, capfd):
    mlflow.set_tracking_uri(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(SystemExit) as exit_:
        runner.main(Step(name="main", about=""), [])
    lines = capfd.readouterr().err.splitlines()
    assert exit_.value.code == 1 and len(lines) == 2, lines
    assert "WARNING: the MLflow store" in lines[0] and "main: ERROR: the MLflow store" in lines[1]


class Database:
    """Calls of a database without a server in front of it, of which the first ones fail."""

    def __init__(self, failures: int, code: str = "TEMPORARILY_UNAVAILABLE"):
        self.failures, self.code, self.calls = failures, code, 0

    def set_tag(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            error = MlflowException("(psycopg.OperationalError) server closed the connection")
            error.error_code = self.code
            raise error
        return "set"


@pytest.fixture
def waited(quick, monkeypatch) -> list[float]:
    """The pauses that are made; the store is a PostgreSQL."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "2")
    mlflow.set_tracking_uri("postgresql://mlflow:secret@127.0.0.1/mlflow")
    pauses: list[float] = []
    monkeypatch.setattr(outage.time, "sleep", pauses.append)
    return pauses


def test_a_database_without_a_server_is_waited_for_as_well(waited, caplog):
    database = Database(2)
    assert outage.patient(database).set_tag() == "set"
    assert waited == [0.0, 4.0]
    (_, away), (_, back) = told(caplog)
    assert "mlflow:***@127.0.0.1/mlflow does not answer ((psycopg.OperationalError) server closed" in away
    assert "trying again for up to 12 seconds" in away and "answers again" in back


def test_a_database_that_stays_away_is_given_up(waited):
    database = Database(9)
    with pytest.raises(outage.AwayError, match="has not answered for"):
        outage.patient(database).set_tag()
    assert waited == [0.0, 4.0, 8.0]
    with pytest.raises(outage.AwayError):
        outage.patient(database).set_tag()
    assert database.calls == 5


@pytest.mark.parametrize("uri, code", [("sqlite:///x.db", "TEMPORARILY_UNAVAILABLE"), (None, "BAD_REQUEST")])
def test_other_errors_and_a_full_file_are_raised_at_once(waited, uri, code):
    database = Database(1, code)
    mlflow.set_tracking_uri(uri or mlflow.get_tracking_uri())
    with pytest.raises(MlflowException, match="server closed"):
        outage.patient(database).set_tag()
    assert database.calls == 1 and not waited


def test_by_default_the_limit_is_four_minutes(monkeypatch):
    monkeypatch.delenv(RETRIES, raising=False)
    assert outage.waits() == [0, 4, 8, 16, 32, 64, 120]
    assert outage.in_words(sum(outage.waits())) == "4 minutes" and outage.in_words(12) == "12 seconds"


def test_mlflow_waits_as_it_is_told_here(server):
    """The number of tries; `waits` has one pause before each but the first."""
    server.away = 9
    with pytest.raises(MlflowException):
        mlflow.MlflowClient().set_tag("1", "key", "value")
    assert len(server.paths) == len(outage.waits()) + 1


def test_a_run_cannot_be_opened_while_the_store_is_away(server):
    server.away = 99
    with pytest.raises(outage.AwayError, match="start again once it does"):
        store.open_run(Step(name="main", about=""))
