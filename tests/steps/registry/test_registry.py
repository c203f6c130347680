"""The champion is the first version that reaches the minimums, then the better one on the same validation images."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode
from packaging.requirements import Requirement

from cxr.errors import CxrError
from cxr.evaluation.results import ChampionComparison, Comparison, Estimate, NoComparison, Scores
from steps.registry import gate, identity, registry
from steps.registry.gate import Verdict
from steps.registry.lock import alone
from tests.helpers import settings_with

NAME = "model"
RULES = settings_with({
    "registry.gate.minimum.accuracy": 0.5, "registry.gate.minimum.auc_finding": "null",
    "registry.gate.minimum.balanced_accuracy": "null"}).registry.gate  # fmt: skip


@pytest.fixture
def version(store):
    """Registers a version without files."""
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    numbers = count()

    def create(phantoms: str = "false", bundle: str = ""):
        tags = {"cxr.synthetic": phantoms, "cxr.bundle_digest": bundle or str(next(numbers))}
        return client.create_model_version(NAME, "/nowhere", tags=tags)

    return create


def champion() -> int:
    return int(mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion").version)


def scores_with(accuracy: float) -> Scores:
    return {"accuracy": Estimate(value=accuracy, low=accuracy - 0.05, high=accuracy + 0.05)}


def settle(version, difference=None, accuracy: float = 0.9, left_out: int | None = None):
    """Settle by the real rules; `difference` is (value, low, high) to the champion, or the reason for none.

    `left_out` is the number of validation images that a champion of another split has seen.
    """

    def compare(present):
        number = int(present.version)
        if isinstance(difference, str):
            return NoComparison(version=number, why_not=difference)
        value, low, high = difference
        comparison = Comparison(
            images=130,
            left_out=left_out,
            differences={"macro_f1": Estimate(value=value, low=low, high=high)},
            other={},
            only_ours_right=0,
            only_theirs_right=0,
            mcnemar_p=1,
        )
        return ChampionComparison(version=number, validation=comparison, test=comparison)

    judge = partial(gate.judge, RULES, scores_with(accuracy), compare=compare, new=version.tags, finding="pneumonia")
    return registry.settle(mlflow.MlflowClient(), NAME, version, judge)[0]


def test_the_first_is_champion_and_a_better_one_takes_over(version):
    assert settle(version()).alias == "champion"
    verdict = settle(version(), (0.03, -0.01, 0.07))
    assert str(verdict) == "champion: validation macro_f1 +0.0300 (-0.0100 to +0.0700) against version 1"
    assert champion() == 2
    assert mlflow.MlflowClient().get_model_version(NAME, "2").tags["cxr.gate"] == str(verdict)
    assert [entry["version"] for entry in registry.history(mlflow.MlflowClient(), NAME)] == ["1", "2"]


def test_a_champion_of_another_split_yields_to_a_better_model_and_the_verdict_says_on_how_many_images(version):
    settle(version())
    on = "on 130 of 240 validation images"
    verdict = settle(version(), (-0.01, -0.03, 0.01), left_out=110)
    assert verdict.alias == "challenger" and on in str(verdict)
    verdict = settle(version(), (0.03, -0.01, 0.07), left_out=110)
    assert str(verdict) == f"champion: validation macro_f1 +0.0300 (-0.0100 to +0.0700) against version 1, {on}"
    assert mlflow.MlflowClient().get_model_version(NAME, "3").tags["cxr.gate"] == str(verdict)
    assert verdict.checks[-1].words.startswith("validation macro_f1 is not worse than version 1's by more than 0.02 (")
    check = verdict.checks[1]
    assert check.rule == "at least 100 validation images that a champion of another split has not seen"
    assert check.passed and check.words.startswith(f"compared {on}; version 1 has seen the others")
    verdict = settle(version(), (0.03, -0.01, 0.07), left_out=0)
    assert "on 130 of 130 validation images" in str(verdict) and verdict.checks[1].rule == check.rule
    assert champion() == 4


@pytest.mark.parametrize(
    ("difference", "accuracy", "words"),
    [
        ((-0.01, -0.03, 0.01), 0.9, "macro_f1 -0.0100"),
        ((0.0, 0.0, 0.0), 0.9, "macro_f1 +0.0000"),
        ((0.01, -0.03, 0.05), 0.9, "could be worse than version 1's by more than 0.02"),
        ((0.1, 0.05, 0.15), 0.4, "validation accuracy 0.4000, the minimum is 0.5"),
        ((None, None, None), 0.9, "macro_f1 is undefined"),
        ("the champion (version 1) was trained on another split", 0.9, "another split"),
    ],
    ids=["worse", "a draw", "too uncertain", "under the minimum", "no metric", "not comparable"],
)
def test_a_version_that_fails_the_gate_is_challenger_and_says_why(version, difference, accuracy, words):
    settle(version())
    verdict = settle(version(), difference, accuracy)
    assert words in str(verdict) and verdict.alias == "challenger"
    assert champion() == 1
    challenger = mlflow.MlflowClient().get_model_version_by_alias(NAME, "challenger")
    assert int(challenger.version) == 2 and challenger.tags["cxr.gate"] == str(verdict)


def test_the_first_must_reach_the_minimum_too(version):
    assert settle(version(), accuracy=0.3).alias == "challenger"
    assert registry.champion_of(mlflow.MlflowClient(), NAME) is None


ANOTHER_SPLIT = "the champion was trained on another split"


def test_a_champion_of_phantoms_yields_to_a_model_of_x_rays(version):
    assert settle(version("true")).alias == "champion"
    assert settle(version("true"), ANOTHER_SPLIT).alias == "challenger"  # nothing is known of either
    assert "the minimum is 0.5" in str(settle(version(), ANOTHER_SPLIT, accuracy=0.4))
    assert champion() == 1
    verdict = settle(version(), ANOTHER_SPLIT)
    assert str(verdict) == "champion: trained on X-rays, version 1 on phantoms"
    assert [check.passed for check in verdict.checks] == [True, True]
    assert champion() == 4
    assert registry.history(mlflow.MlflowClient(), NAME)[-1]["why"] == "trained on X-rays, version 1 on phantoms"


def test_a_model_of_phantoms_never_replaces_one_of_x_rays(version):
    settle(version())
    verdict = settle(version("true"), (0.5, 0.4, 0.6))
    assert str(verdict) == "challenger: trained on phantoms, version 1 on X-rays"
    assert [check.passed for check in verdict.checks] == [True, False]
    assert champion() == 1


def test_a_champion_that_does_not_say_what_it_was_trained_on_counts_as_one_of_x_rays(version):
    settle(version())
    mlflow.MlflowClient().delete_model_version_tag(NAME, "1", "cxr.synthetic")
    assert settle(version("true"), (0.5, 0.4, 0.6)).alias == "challenger"
    assert settle(version(), ANOTHER_SPLIT).alias == "challenger"
    assert champion() == 1


def test_the_weights_of_the_champion_served_otherwise_take_its_place(version):
    settle(version(bundle="a"))
    verdict = settle(version(bundle="a"), (0.0, 0.0, 0.0))
    assert str(verdict) == "champion: the weights of version 1, with other code or settings to serve them"
    assert champion() == 2
    assert settle(version(bundle="a"), (0.0, 0.0, 0.0), accuracy=0.3).alias == "challenger"
    assert settle(version(bundle="b"), (0.0, 0.0, 0.0)).alias == "challenger"
    assert champion() == 2


def test_of_two_at_once_the_second_is_compared_with_the_first(version):
    versions, seen, both = [version(), version()], [], threading.Barrier(2)

    def judge(present):
        seen.append(present.version if present else None)
        return Verdict("champion", "better") if present is None else Verdict("challenger", "a draw")

    def settle_at_once(new):
        both.wait()
        with alone(mlflow.MlflowClient(), NAME):
            registry.settle(mlflow.MlflowClient(), NAME, new, judge)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(settle_at_once, versions))
    assert seen[0] is None and seen[1] is not None
    aliases = mlflow.MlflowClient().get_registered_model(NAME).aliases
    assert sorted(aliases) == ["challenger", "champion"] and len(set(aliases.values())) == 2


@pytest.mark.parametrize("code", ["TEMPORARILY_UNAVAILABLE", "PERMISSION_DENIED"])
def test_an_error_of_the_store_does_not_mean_that_there_is_no_champion(version, monkeypatch, code):
    settle(version())
    new = version()

    def fail(*_):
        raise MlflowException("database is locked", ErrorCode.Value(code))

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "get_model_version_by_alias", fail)
        with pytest.raises(MlflowException, match="locked"):
            settle(new, (-0.1, -0.2, 0.0))
        patch.setattr(mlflow.MlflowClient, "get_registered_model", fail)
        with pytest.raises(MlflowException, match="locked"):
            registry.versions(mlflow.MlflowClient(), NAME)
    assert champion() == 1 and "cxr.gate" not in mlflow.MlflowClient().get_model_version(NAME, "2").tags


@pytest.mark.parametrize("name", [NAME, "no such model", "no/name"])
def test_what_is_not_in_the_registry_is_no_error(version, name):
    assert registry.champion_of(mlflow.MlflowClient(), name) is None
    assert registry.versions(mlflow.MlflowClient(), name) == []


def test_a_version_without_an_alias_moves_none(version):
    settle(version())
    client, new = mlflow.MlflowClient(), version()
    verdict, _ = registry.settle(client, NAME, new, lambda champion: Verdict("", "nobody asked"))
    assert client.get_registered_model(NAME).aliases == {"champion": 1} and str(verdict) == "no alias: nobody asked"
    assert client.get_model_version(NAME, "2").tags["cxr.gate"] == "no alias: nobody asked"


def test_a_promoted_challenger_is_no_longer_challenger(version):
    settle(version()), settle(version(), (-0.1, -0.2, 0.0))
    registry.crown(mlflow.MlflowClient(), NAME, 2, "by hand")
    assert mlflow.MlflowClient().get_registered_model(NAME).aliases == {"champion": 2}


def test_wanted_versions(version):
    client = mlflow.MlflowClient()
    challenger = version()
    with pytest.raises(CxrError, match="model has no champion; give a number"):
        registry.wanted_version(client, NAME, "champion")
    settle(challenger)
    assert registry.wanted_version(client, NAME, "champion") == registry.wanted_version(client, NAME, "01") == "1"
    with pytest.raises(CxrError, match="no other champion than version 1"):
        registry.wanted_version(client, NAME, "previous")
    settle(version(), (0.1, 0.05, 0.15))
    assert registry.wanted_version(client, NAME, "previous") == "1"
    for wanted in ("7", "one", "-1", "²"):
        with pytest.raises(CxrError, match="has the versions 1, 2"):
            registry.wanted_version(client, NAME, wanted)
    with pytest.raises(CxrError, match="no registered model"):
        registry.wanted_version(client, "other", "1")


def test_promote_moves_the_alias_there_and_back(version, run_step):
    client = mlflow.MlflowClient()
    settle(version()), settle(version(), (-0.1, -0.2, 0.0))
    done = run_step("promote", "--version", "2", "--reason", "checked 'by' hand; $HOME", "--registry.name", NAME)
    assert done.returncode == 0, done.stderr
    assert champion() == 2
    assert registry.history(client, NAME)[-1]["why"] == "by hand: checked 'by' hand; $HOME"
    assert run_step("promote", "--version", "previous", "--registry.name", NAME).returncode == 0
    assert champion() == 1
    refused = run_step("promote", "--version", "9", "--registry.name", NAME)
    assert refused.returncode == 1 and "has the versions 1, 2" in refused.stderr


def test_the_requirements_of_a_version_are_pins_that_mlflow_takes_as_they_are():
    """With hashes, MLflow would add all of `mlflow`, without one, and pip would refuse them."""
    from mlflow.utils.environment import _process_pip_requirements

    _, logged, _ = _process_pip_requirements([], identity.requirements())
    names = [Requirement(line).name for line in logged]
    assert "mlflow-skinny" in names and "mlflow" not in names
    assert len(names) == len(identity.requirements()) and all("==" in line for line in logged)


def test_the_gate_knows_the_auc_by_the_name_of_the_finding():
    rules = settings_with({"registry.gate.metric": "auc_finding", "registry.gate.minimum.balanced_accuracy": "null"})
    scores = {"auc_tuberculosis": Estimate(value=0.7)}
    verdict = gate.judge(rules.registry.gate, scores, None, None, {}, "tuberculosis")
    assert str(verdict) == "challenger: validation auc_tuberculosis 0.7000, the minimum is 0.8"
