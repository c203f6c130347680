"""Repeats differ in one setting; what cannot be repeated is refused; the summary has mean and spread."""

import pytest

from cxr.errors import CxrError
from steps.work import repeats
from tests.helpers import settings_with


def test_one_training_needs_no_repeats():
    assert repeats.plan(settings_with({}), "1", {}).overrides == [{}]


def test_seeds_share_the_split_and_folds_do_not():
    seeds = repeats.plan(settings_with({"seed": 7}), "3", {})
    assert seeds.overrides == [{}] + [{step: {"seed": seed} for step in ("train", "finetune")} for seed in ("8", "9")]
    folds = repeats.plan(settings_with({"data.folds": 3}), "1", {"data.folds": "3"})
    assert folds.overrides == [{"prepare_split": {"data.fold": fold}} for fold in ("0", "1", "2")]
    assert {"val_macro_f1", "test_macro_f1"} <= set(folds.metrics)


@pytest.mark.parametrize(
    "settings, seeds, given, words",
    [
        ({}, "0", {}, "seeds: expected a whole number from 1 to 50, got '0'"),
        ({"data.folds": 5}, "2", {}, "seeds=2 and folds=5 are both given; give one of them"),
        ({"data.folds": 5, "data.fold": 1}, "1", {"data.fold": "1"}, "main runs every fold in turn"),
    ],
)
def test_what_cannot_be_repeated_is_refused(settings, seeds, given, words):
    with pytest.raises(CxrError, match=words):
        repeats.plan(settings_with(settings), seeds, given)


@pytest.mark.parametrize("folds", ["1", "21", "many"])
def test_numbers_of_folds_out_of_range_are_refused(folds):
    with pytest.raises(CxrError, match="setting data.folds"):
        settings_with({"data.folds": folds})


def test_lines_have_mean_and_spread():
    plan = repeats.plan(settings_with({"data.folds": 2}), "1", {})
    lines = repeats.lines({"val_accuracy": [0.8, 0.9], "test_accuracy": [0.7, 0.7]}, plan)
    assert lines[0] == "Over 2 folds: mean, standard deviation, minimum to maximum"
    assert lines[1].split() == ["validation,", "accuracy", "0.8500", "±", "0.0707", "0.8000", "to", "0.9000"]
    assert lines[2].split() == ["accuracy", "0.7000", "±", "0.0000", "0.7000", "to", "0.7000"]
