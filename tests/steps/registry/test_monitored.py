"""The tag of a version keeps its last monitorings."""

import json

import mlflow
import pytest

from steps.registry import monitored
from steps.registry.monitored import Monitored

NAME = "model"


def made(number: int) -> Monitored:
    return Monitored("2026-11-01", "2026-11-02", number, 0, "r" * 32, f"2026-11-{number + 1:02}")


@pytest.fixture
def client(store):
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    client.create_model_version(NAME, "/nowhere")
    return client


def kept(client) -> list[int]:
    return [entry["answers"] for entry in json.loads(client.get_model_version(NAME, "1").tags[monitored.TAG])]


def test_the_last_ten_are_kept_in_order(client):
    for number in range(12):
        monitored.record(client, NAME, "1", made(number))
    assert kept(client) == list(range(2, 12))


@pytest.mark.parametrize("text", ["by hand", '"text"', '[{"answers": 3}]', "[1]", "7"])
def test_an_edited_tag_is_written_anew_and_said(client, caplog, text):
    client.set_model_version_tag(NAME, "1", monitored.TAG, text)
    monitored.record(client, NAME, "1", made(5))
    assert kept(client) == [5]
    assert "tag cxr.monitored of version 1 was edited and cannot be read" in caplog.text
