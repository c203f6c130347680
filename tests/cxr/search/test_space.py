"""The bounds of a space must be values of the settings that they are for, and arrive there unchanged."""

import pytest

from cxr.errors import CxrError
from cxr.search import space
from cxr.settings import load
from tests.helpers import settings_with


def check(text: str):
    return space.check(settings_with({"search.space": text}))


def test_a_valid_space_gives_settings_with_a_value_of_each_domain():
    sample = check(
        "{finetune.optimizer.weight_decay: {low: 0.25, high: 0.5}, train.class_weights: {choices: [none, balanced]}}"
    )
    assert sample.finetune.optimizer.arguments["weight_decay"] == 0.25
    assert sample.train.class_weights == "none"


@pytest.mark.parametrize(
    "text, words",
    [
        ("{finetune.optimiser.lr: {low: 0.1, high: 1}}", "unknown setting 'finetune.optimiser.lr'; did you mean"),
        ("{finetune.epoch: {low: 1, high: 9}}", "did you mean 'finetune.epochs'?"),
        (
            "{finetune.epochs: {low: 0, high: 9}}",
            "setting finetune.epochs = 0: it should be greater than or equal to 1",
        ),
        ("{finetune.epochs: {low: 1.0, high: 9.0}}", "setting finetune.epochs"),
        ("{finetune.ema: {low: 0.5, high: 1.0}}", "setting finetune.ema = 1.0: it should be less than 1"),
        ("{finetune.sampler: {choices: [shuffled, sorted]}}", "setting finetune.sampler = 'sorted'"),
        ("{finetune.optimizer: {choices: [a, b]}}", "setting finetune.optimizer"),
        ("{model: {choices: [a, b]}}", "unknown setting 'model'"),
    ],
)
def test_what_the_schema_refuses_is_refused_before_any_trial(text, words):
    with pytest.raises(CxrError) as error:
        check(text)
    assert str(error.value).startswith("search.space: ")
    assert words in str(error.value)


@pytest.mark.parametrize("value", [1e-05, 3.3e-4, 123456.789, 1e22, 7, True, False, None, "balanced"])
def test_values_arrive_as_they_are(value):
    name = "finetune.optimizer.given"
    given = load.resolve(settings_with({}).to_dict(), space.overrides({name: value})).finetune.optimizer.arguments
    assert given["given"] == value
    assert type(given["given"]) is type(value)
