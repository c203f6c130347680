"""The tag of a version keeps its validations, and the newest external one is found."""

import mlflow
import pytest

from steps.registry import validations
from steps.registry.validations import Validated

NAME = "model"


def made(version: int, at: str, **given) -> Validated:
    scored = {"auc": 0.81234, "low": 0.78, "high": 0.84}
    values = {"on": "elsewhere", "images": 900, "patients": 800, "own": 0, **scored, "run_id": "r" * 32}
    return Validated(**{**values, "version": str(version), "at": at, **given})


@pytest.fixture
def client(store):
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    for _ in range(2):
        client.create_model_version(NAME, "/nowhere")
    return client


def test_the_newest_of_the_version_wins_over_newer_ones_of_others(client):
    assert validations.newest(client, NAME) is None
    for entry in (made(1, "2026-01-01", on="first"), made(1, "2026-01-02"), made(2, "2026-01-03", on="other")):
        validations.record(client, NAME, entry)
    found = validations.newest(client, NAME, "1")
    assert (found.data, found.images, found.patients, found.auc.low) == ("elsewhere", 900, 800, 0.78)
    assert found.other_version is None
    other = validations.newest(client, NAME, "3")
    assert (other.data, other.other_version) == ("other", 2)
    assert str(made(1, "")) == f"version 1 on 900 images of elsewhere: AUC 0.812 (0.780 to 0.840); run {'r' * 32}"


def test_the_models_own_test_split_is_no_external_validation(client):
    validations.record(client, NAME, made(1, "2026-01-01", own=900))
    assert validations.newest(client, NAME, "1") is None
    validations.record(client, NAME, made(1, "2026-01-02", own=30))
    said = validations.newest(client, NAME, "1").data
    assert said == "elsewhere (30 of the images stand in the model's own test split)"


@pytest.mark.parametrize("given", [{"synthetic": True}, {"checked": False}])
def test_phantoms_and_images_that_may_be_of_the_training_are_no_external_validation(client, given):
    validations.record(client, NAME, made(1, "2026-01-01", **given))
    assert validations.newest(client, NAME, "1") is None


def test_the_last_ten_fit_into_a_tag(client):
    nothing = {"auc": None, "low": None, "high": None}
    for number in range(14):
        validations.record(client, NAME, made(1, f"2026-01-{number + 1:02}", on="肺" * 300, **nothing))
    tag = client.get_model_version(NAME, "1").tags[validations.TAG]
    assert len(tag) < 5000 and tag.count("run_id") == 10 and "2026-01-14" in tag
    assert validations.newest(client, NAME, "1").auc.value is None and "AUC undefined" in str(made(1, "", **nothing))


def test_an_edited_tag_is_ignored_and_said(client, caplog):
    client.set_model_version_tag(NAME, "1", validations.TAG, "elsewhere, 0.9")
    assert validations.newest(client, NAME) is None
    assert "tag cxr.validated_on of version 1 was edited and cannot be read" in caplog.text
    validations.record(client, NAME, made(1, "2026-01-01"))
    assert validations.newest(client, NAME, "1").data == "elsewhere"
