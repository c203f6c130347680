"""One process at a time decides on a champion, also on machines that share nothing but the store."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from steps.registry import lock
from steps.registry.lock import OWNER, SIGN, alone

ROOT = Path(__file__).resolve().parents[3]
NAME = "a_model"
LOCK = f"{NAME}.lock"
SHARED = [pytest.mark.slow, pytest.mark.xdist_group("tracking_server")]
FAR = "another-machine:1:0.00:abcd"  # the owner of a lock
# A machine of its own, as far as files go: it has another folder for temporary ones.
COUNT = """
import sys, time, mlflow
from steps.registry.lock import alone
client = mlflow.MlflowClient()
for _ in range(int(sys.argv[1])):
    with alone(client, "a_model"):
        count = int(client.get_registered_model("a_model").tags["count"])
        time.sleep(0.05)
        client.set_registered_model_tag("a_model", "count", str(count + 1))
"""
HOLD = """
import time, mlflow
from steps.registry.lock import alone
with alone(mlflow.MlflowClient(), "a_model"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=SHARED)])
def client(request, monkeypatch):
    monkeypatch.setattr(lock, "_WAIT_S", 0.05)
    if request.param == "sqlite":
        request.getfixturevalue("store")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("tracking_server").uri)
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    made = mlflow.MlflowClient()
    made.create_registered_model(NAME, tags={"count": "0"})
    yield made
    for name in models(made):
        made.delete_registered_model(name)


def start(code: str, folder: Path, *words: str) -> subprocess.Popen:
    folder.mkdir()
    environment = {**os.environ, "TMPDIR": str(folder), "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def models(client) -> list[str]:
    return sorted(model.name for model in client.search_registered_models() if model.name.startswith(NAME))


def test_processes_that_share_only_the_store_take_turns(client, tmp_path):
    running = [start(COUNT, tmp_path / str(number), "4") for number in range(3)]
    for process in running:
        process.communicate(timeout=240)
    assert [process.returncode for process in running] == [0, 0, 0]
    assert client.get_registered_model(NAME).tags["count"] == "12"
    assert models(client) == [NAME]


def test_a_holder_that_was_killed_holds_it_no_longer(client, tmp_path):
    with start(HOLD, tmp_path / "other") as holder:
        assert holder.stdout.readline() == "held\n" and models(client) == [NAME, LOCK]
        holder.kill()
    began = time.monotonic()
    with alone(client, NAME):
        assert time.monotonic() - began < 30
        assert client.get_registered_model(LOCK).tags[OWNER] != FAR
    assert models(client) == [NAME]


def test_a_machine_that_shows_no_sign_of_life_loses_it(client, monkeypatch):
    monkeypatch.setattr(lock, "GONE_S", 5.0)  # a busy machine may take a second for each read and write
    client.create_registered_model(LOCK, tags={OWNER: FAR})
    shows = threading.Event()

    def show():
        for count in range(40):
            client.set_registered_model_tag(LOCK, SIGN, str(count))
            time.sleep(0.2)
        shows.set()

    showing = threading.Thread(target=show)
    showing.start()
    with alone(client, NAME):
        assert shows.is_set()
    showing.join()
    assert models(client) == [NAME]


def test_the_lock_is_taken_from_a_lost_holder_only_once(client):
    client.create_registered_model(LOCK, tags={OWNER: FAR})
    lock._bury(client, LOCK, FAR)
    with alone(client, NAME):
        lock._bury(client, LOCK, FAR)  # by a slow process, which still means the holder before
        assert client.get_registered_model(LOCK).tags[OWNER] != FAR
    assert models(client) == [NAME]


def test_who_lost_it_does_not_give_back_that_of_another(client):
    with ExitStack() as held:
        held.enter_context(alone(client, NAME))
        client.set_registered_model_tag(LOCK, OWNER, FAR)
    assert client.get_registered_model(LOCK).tags[OWNER] == FAR


def test_a_holder_shows_signs_of_life(client, monkeypatch):
    monkeypatch.setattr(lock, "SIGN_S", 0.1)
    with alone(client, NAME):
        deadline = time.monotonic() + 20
        while client.get_registered_model(LOCK).tags.get(SIGN, "0") < "2":
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_error_gives_it_back(client):
    with pytest.raises(ZeroDivisionError), alone(client, NAME):
        raise ZeroDivisionError
    assert models(client) == [NAME]


class Changed:
    """A client some of whose calls are others."""

    def __init__(self, client, **calls):
        self.client, self.calls = client, calls

    def __getattr__(self, name):
        return self.calls.get(name) or getattr(self.client, name)


def test_it_may_be_given_back_between_the_refusal_and_the_look_at_what_there_is(client):
    refusals = [MlflowException("not found", RESOURCE_DOES_NOT_EXIST)]

    def create(*args, **kwargs):
        if refusals:
            raise refusals.pop()
        return client.create_registered_model(*args, **kwargs)

    with alone(Changed(client, create_registered_model=create), NAME):
        assert not refusals and models(client) == [NAME, LOCK]


def test_one_whose_answer_was_lost_is_ours(client):
    client.create_registered_model(LOCK, tags={OWNER: FAR})
    began = time.monotonic()
    lock._take(client, LOCK, FAR)
    assert time.monotonic() - began < 30 < lock.GONE_S
    assert client.get_registered_model(LOCK).tags == {OWNER: FAR}


def test_it_is_not_taken_from_its_holder_because_the_store_was_away(client, monkeypatch):
    monkeypatch.setattr(lock, "GONE_S", 0.4)
    monkeypatch.setattr(lock, "SIGN_S", 0.1)
    client.create_registered_model(LOCK, tags={OWNER: FAR})
    answers = []

    def late(name):
        time.sleep(0.15)
        answers.append(name)
        if len(answers) == 8:  # after more than twice the time without a sign of life
            client.delete_registered_model(LOCK)
        return client.get_registered_model(name)

    lock._take(Changed(client, get_registered_model=late), LOCK, "me:1:0.00:ab")
    assert len(answers) == 8 and models(client) == [NAME, LOCK]  # and nothing was renamed
