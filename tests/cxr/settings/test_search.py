"""The section `search`: what its space may hold, and what is refused in one line."""

import pytest
import yaml

from cxr.errors import CxrError
from cxr.settings.search import Choices, Range
from tests.helpers import settings_with


def space(text: str):
    return settings_with({"search.space": text}).search.space


def test_a_space_has_ranges_and_choices():
    found = space("{finetune.optimizer.lr: {low: 1e-5, high: 1e-3, log: true}, finetune.unfreeze: {choices: [2, all]}}")
    assert found["finetune.optimizer.lr"] == Range(low=1e-5, high=1e-3, log=True)
    assert found["finetune.unfreeze"] == Choices(choices=[2, "all"])


def test_a_space_that_is_given_replaces_the_whole_of_the_old_one():
    assert list(space("{train.epochs: {low: 2, high: 9}}")) == ["train.epochs"]


def test_the_settings_of_a_search_can_be_written_and_read_back():
    settings = settings_with({"search.trials": 3})
    assert settings_with({"search.trials": 3}) == settings
    again = yaml.safe_load(settings.to_yaml())["search"]["space"]
    assert again["finetune.optimizer.lr"] == {"low": 1e-5, "high": 1e-3, "log": True}
    assert type(settings).model_validate(settings.to_dict()) == settings


@pytest.mark.parametrize(
    "text, words",
    [
        ("{finetune.optimizer.lr: {low: 0.1, high: 0.001}}", "lr: low 0.1 is not below high 0.001"),
        ("{finetune.optimizer.lr: {low: 1, high: 1}}", "low 1 is not below high 1"),
        ("{finetune.optimizer.lr: {low: 0, high: 1, log: true}}", "low 0: log: true needs a number above 0"),
        ("{finetune.optimizer.lr: {low: a, high: 1}}", "expected numbers as low and high"),
        ("{finetune.optimizer.lr: {low: true, high: 2}}", "expected numbers as low and high"),
        ("{finetune.optimizer.lr: {low: 1, high: 2, step: 1}}", "expected {low: NUMBER, high: NUMBER}"),
        ("{finetune.optimizer.lr: 0.1}", "expected {low: NUMBER, high: NUMBER}"),
        ("{finetune.unfreeze: {choices: [2]}}", "expected two choices or more"),
        ("{finetune.unfreeze: {choices: [2, 2]}}", "the same choice is given twice"),
        ("{finetune.unfreeze: {choices: [[1], [2]]}}", "expected two choices or more: numbers, texts"),
        ("{}", "expected settings to search"),
        ("{seed: {low: 1, high: 9}}", "seed cannot be searched; expected settings of model, train, finetune"),
        ("{data.val_size: {low: 0.1, high: 0.2}}", "data.val_size cannot be searched"),
        ("{finetune.metric.average: {choices: [macro, micro]}}", "finetune.metric.average says which trial is better"),
        ("{finetune.select: {choices: [clean, robust]}}", "it must be the same in all of them"),
    ],
)
def test_a_bad_space_is_refused_in_one_line(text, words):
    with pytest.raises(CxrError) as error:
        space(text)
    assert words in str(error.value)
    assert "setting search.space" in str(error.value)


@pytest.mark.parametrize(
    "key, value", [("trials", 0), ("trials", 1001), ("hours", 0), ("workers", 0), ("study", "a'b"), ("prune_after", 0)]
)
def test_numbers_out_of_range_and_odd_names_are_refused(key, value):
    with pytest.raises(CxrError, match=f"setting search.{key} = "):
        settings_with({f"search.{key}": value})
