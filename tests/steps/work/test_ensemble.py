"""The splits of the runs of an ensemble: one, or those of all folds."""

from types import SimpleNamespace

import pytest

from cxr.errors import CxrError
from steps.work import ensemble


@pytest.fixture
def splits(monkeypatch):
    """Digests of the manifests of splits, by the run that made them; none of them is of folds."""
    digests: dict[str, str] = {}
    monkeypatch.setattr(
        ensemble, "load_manifest", lambda _, run_id: SimpleNamespace(run_id=run_id, digest=digests[run_id])
    )
    monkeypatch.setattr(ensemble.folds, "complete", lambda manifests: False)
    return digests


def test_runs_of_two_splits_that_are_alike_have_one_split(splits):
    """`prepare_split` that is run twice makes the same split twice."""
    splits |= {"first": "same", "again": "same"}
    found = ensemble._manifests(None, ["again", "first", "again"])
    assert len(found) == 1 and found[0].digest == "same"


def test_runs_of_different_splits_are_refused(splits):
    splits |= {"first": "one", "second": "another"}
    with pytest.raises(CxrError, match="expected runs of one split, or one run of every fold .* first, second"):
        ensemble._manifests(None, ["second", "first"])


def test_folds_are_taken_in_the_order_of_their_runs(splits, monkeypatch):
    splits |= {"first": "one", "second": "another"}
    monkeypatch.setattr(ensemble.folds, "complete", lambda manifests: True)
    assert [found.run_id for found in ensemble._manifests(None, ["second", "first"])] == ["second", "first"]
