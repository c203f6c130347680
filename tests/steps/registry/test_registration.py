"""A registration that is interrupted is finished by the next one; the history of champions fits into its tag."""

from types import SimpleNamespace

import mlflow
import pytest

from cxr.errors import CxrError
from cxr.evaluation.results import Estimate
from steps.registry import identity, registry
from steps.registry.gate import Verdict
from tests.helpers import settings_with

NAME = "model"


@pytest.fixture
def register(store, monkeypatch, tmp_path):
    """Function that registers one bundle for a run by `registry.register`, without packaging or logging a model."""
    monkeypatch.setattr(registry, "log_model", lambda *_: SimpleNamespace(model_uri=str(tmp_path)))
    monkeypatch.setattr("cxr.packaging.package.write", lambda *_: None)
    monkeypatch.setattr(identity, "of_files", lambda _: "digest")
    settings = settings_with({
        "registry.name": NAME, "registry.gate.minimum.auc_finding": "null",
        "registry.gate.minimum.balanced_accuracy": "null"})  # fmt: skip
    bundle = SimpleNamespace(network=SimpleNamespace(classes=("normal", "pneumonia")), finding="pneumonia")

    def register(run_id: str):
        client = mlflow.MlflowClient()
        context = SimpleNamespace(settings=settings, client=client, folder=tmp_path, run_id=run_id, tag=lambda *_: None)
        tags = {"cxr.bundle_digest": "a", "cxr.evaluate_run_id": run_id}
        return registry.register(
            context, bundle, {}, tags, {"accuracy": Estimate(value=0.9)}, SimpleNamespace(compare=None), {}, {}
        )

    return register


def champion_number() -> int:
    return int(mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion").version)


def test_nobody_waits_while_a_model_is_logged(register, monkeypatch, tmp_path):
    """To log it takes minutes where many evaluate at once."""
    there = []

    def log_model(*_):
        there.append([model.name for model in mlflow.MlflowClient().search_registered_models()])
        return SimpleNamespace(model_uri=str(tmp_path))

    monkeypatch.setattr(registry, "log_model", log_model)
    made = register("run")
    assert there == [[]], "the lock is a registered model"
    assert made.registered.version == 1 and champion_number() == 1


def test_a_version_that_was_not_judged_names_the_run_that_went_on_with_it(register, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(registry, "settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            register("first")
    tags = mlflow.MlflowClient().get_model_version(NAME, "1").tags
    assert tags["cxr.evaluate_run_id"] == "first" and "cxr.gate" not in tags
    for run_id in ("second", "third"):  # the third finds it judged
        assert register(run_id).registered.version == 1
        tags = mlflow.MlflowClient().get_model_version(NAME, "1").tags
        assert tags["cxr.evaluate_run_id"] == "second" and tags["cxr.gate"].startswith("champion")


@pytest.fixture
def client(store) -> mlflow.MlflowClient:
    """A client of a store with a registered model of three versions without files."""
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    for _ in range(3):
        client.create_model_version(NAME, "/nowhere")
    return client


@pytest.mark.parametrize("letter", ["\N{GREEK SMALL LETTER ALPHA}", "\x01", '"'])
def test_the_history_fits_into_a_tag_whatever_is_written_in_it(client, letter):
    why = 150 * letter
    for number in range(20):
        registry.crown(client, NAME, 1 + number % 2, why)
    assert len(client.get_registered_model(NAME).tags[registry.HISTORY]) <= 5000
    champions = registry.history(client, NAME)
    assert len(champions) > 3 and champions[-1]["version"] == "2" and champions[-1]["why"] == why


@pytest.mark.parametrize("text", ["", "{", "7", '"a"', "[7]", '["a"]', "[{}]", '[{"version": "two"}]', "[null]"])
def test_a_history_that_somebody_has_edited_is_ignored(client, text):
    registry.crown(client, NAME, 1, "first")
    client.set_registered_model_tag(NAME, registry.HISTORY, text)
    assert registry.history(client, NAME) == []
    with pytest.raises(CxrError, match="no other champion than version 1"):
        registry.wanted_version(client, NAME, "previous")
    registry.crown(client, NAME, 2, "second")
    assert [entry["version"] for entry in registry.history(client, NAME)] == ["2"]


@pytest.fixture
def interrupt(client, monkeypatch):
    """Function that makes a version champion, and is interrupted before the method of the client that is named."""

    def interrupt(number: int, method: str) -> None:
        def stop(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(client, method, stop)
            with pytest.raises(KeyboardInterrupt):
                settle(client, number, "champion")
        assert champion_number() == number

    return interrupt


def settle(client, number: int, alias: str) -> int | None:
    """Settle a version by a judge who gives it `alias`; returns the champion that it was judged against."""
    against = []

    def judge(champion):
        against.append(champion)
        return Verdict(alias, "judged")

    version = client.get_model_version(NAME, str(number))
    assert registry.settle(client, NAME, version, judge)[1] is against[0]
    return None if against[0] is None else int(against[0].version)


LAST_STEPS = pytest.mark.parametrize("method", ["set_registered_model_tag", "set_model_version_tag"])


@LAST_STEPS
def test_a_champion_that_was_not_judged_is_judged_against_the_one_before(client, interrupt, method):
    interrupt(1, method)
    assert settle(client, 1, "champion") is None
    assert settle(client, 2, "champion") == 1
    interrupt(3, method)
    assert settle(client, 3, "champion") == 2
    assert champion_number() == 3 and client.get_model_version(NAME, "3").tags["cxr.gate"] == "champion: judged"
    assert [entry["version"] for entry in registry.history(client, NAME)] == ["1", "2", "3"]


@LAST_STEPS
def test_the_one_before_is_the_last_champion_that_still_exists(client, interrupt, method):
    settle(client, 1, "champion"), settle(client, 2, "champion")
    interrupt(3, method)
    client.delete_model_version(NAME, "2")
    assert settle(client, 3, "champion") == 1


@LAST_STEPS
def test_a_champion_that_was_not_judged_and_fails_now_gives_the_alias_back(client, interrupt, method):
    interrupt(1, method)
    assert settle(client, 1, "challenger") is None
    assert client.get_registered_model(NAME).aliases == {"challenger": 1}
    settle(client, 2, "champion")
    interrupt(3, method)
    assert settle(client, 3, "challenger") == 2
    assert client.get_registered_model(NAME).aliases == {"champion": 2, "challenger": 3}
    assert client.get_model_version(NAME, "3").tags["cxr.gate"] == "challenger: judged"
