"""Two models on the same images: a model does not differ from itself, and a better one is seen to be better."""

import numpy as np
import pytest

from cxr.evaluation.comparison import COMPARED, compare
from cxr.evaluation.scores import Sample
from tests.helpers import CLASSES

LABELS = np.random.default_rng(0).integers(0, 3, 300)
SAMPLE = Sample.made(LABELS, np.arange(300).astype(str), CLASSES, seed=0)


def answers(right: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(300) < right, LABELS, (LABELS + 1) % 3)
    return 0.7 * np.eye(3)[said] + 0.1


def test_a_model_against_itself():
    found = compare(SAMPLE, answers(0.8, 1), answers(0.8, 1))
    assert all(found["differences"][name] == {"value": 0.0, "low": 0.0, "high": 0.0} for name in COMPARED)
    assert found["mcnemar_p"] == 1.0


def test_a_much_better_model():
    found = compare(SAMPLE, answers(0.9, 1), answers(0.6, 2))
    assert found["differences"]["macro_f1"]["low"] > 0.1
    assert found["differences"]["loss"]["high"] < 0
    assert found["mcnemar_p"] < 1e-6
    assert found["only_ours_right"] > found["only_theirs_right"]


def test_swapping_changes_the_sign_alone():
    one, other = compare(SAMPLE, answers(0.8, 1), answers(0.7, 2)), compare(SAMPLE, answers(0.7, 2), answers(0.8, 1))
    for name in COMPARED:
        a, b = one["differences"][name], other["differences"][name]
        assert a["value"] == pytest.approx(-b["value"]) and a["low"] == pytest.approx(-b["high"])
