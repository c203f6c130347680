"""Who is champion: the first, then the better one on the same split; a draw keeps the one there is."""

from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest

from steps import registry

NAME = "model"


@pytest.fixture
def version(store):
    """Registers a version with a validation metric; nothing is behind it but tags."""
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)

    def make(value: float, split: str = "a", metric: str = "F1"):
        tags = {"cxr.manifest_digest": split, "cxr.val_metric": str(value), "cxr.val_metric_name": metric}
        return client.create_model_version(NAME, "/nowhere", tags=tags)

    return make


def champion() -> int:
    return int(mlflow.MlflowClient().get_model_version_by_alias(NAME, "champion").version)


def test_the_first_is_champion_and_a_better_one_takes_over(version):
    client = mlflow.MlflowClient()
    assert registry.settle(client, NAME, version(0.70)) == "champion: the first version"
    words = registry.settle(client, NAME, version(0.75))
    assert words == "champion: validation metric 0.7500 against 0.7000 of version 1"
    assert champion() == 2
    assert client.get_model_version(NAME, "2").tags["cxr.gate"] == words


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"value": 0.6}, "challenger: validation metric 0.6000 against 0.7000 of version 1"),
        ({"value": 0.7}, "challenger: validation metric 0.7000 against 0.7000 of version 1"),
        ({"value": 0.9, "split": "b"}, "challenger: another split than the champion's (version 1)"),
        ({"value": 0.9, "metric": "AUROC"}, "challenger: another metric than the champion's (version 1)"),
    ],
)
def test_what_is_not_better_on_the_same_split_challenges(version, made, words):
    client = mlflow.MlflowClient()
    registry.settle(client, NAME, version(0.7))
    assert registry.settle(client, NAME, version(**made)) == words
    assert champion() == 1
    assert int(client.get_model_version_by_alias(NAME, "challenger").version) == 2


def test_two_first_versions_at_once_leave_one_champion(version):
    client = mlflow.MlflowClient()
    made = [version(0.7), version(0.7)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda own: registry.settle(client, NAME, own), made))
    assert champion() in (1, 2)
