"""Scores agree with worked examples, and a score that does not exist is None, not a number."""

import json

import numpy as np
import pytest

from cxr.evaluation import metrics

CLASSES = ("normal", "bacteria", "virus")
LABELS = np.array([0, 0, 1, 1, 1, 2, 2, 2])
SURE = np.array([
    [0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.1, 0.7, 0.2], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6],
    [0.1, 0.2, 0.7], [0.6, 0.1, 0.3], [0.0, 0.1, 0.9],
])  # fmt: skip


def test_a_worked_example():
    found = metrics.scores(LABELS, SURE, CLASSES)
    assert found["accuracy"] == pytest.approx(5 / 8)
    assert found["classes"]["normal"]["precision"] == pytest.approx(1 / 2)
    assert found["classes"]["bacteria"]["recall"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3 + 2 / 3) / 3)
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 2 / 3) / 3)
    assert found["loss"] == pytest.approx(-np.log([0.8, 0.3, 0.7, 0.5, 0.3, 0.7, 0.3, 0.9]).mean())
    pneumonia = found["pneumonia"]
    assert pneumonia["sensitivity"] == pytest.approx(5 / 6)
    assert pneumonia["specificity"] == pytest.approx(1 / 2)
    assert pneumonia["ppv"] == pytest.approx(5 / 6)
    # 12 pairs of a normal and a pneumonia; by 1 - p(normal): 0.2 and 0.7 against 0.9 0.8 0.9 0.9 0.4 1.0
    assert pneumonia["auc"] == pytest.approx(11 / 12)


def test_confusion_has_the_truth_in_its_rows():
    assert metrics.confusion(LABELS, SURE, CLASSES).tolist() == [[1, 1, 0], [0, 2, 1], [1, 0, 2]]


def test_what_does_not_exist_is_none():
    found = metrics.scores(np.array([1, 1]), SURE[2:4], CLASSES)
    assert found["classes"]["normal"]["recall"] is None
    assert found["pneumonia"]["auc"] is None
    assert found["pneumonia"]["specificity"] is None
    assert found["macro_f1"] == 1.0
    json.dumps(found, allow_nan=False)
    assert "specificity" not in metrics.flat(found)


def test_a_certain_mistake_costs_much_and_not_infinity():
    found = metrics.scores(np.array([0]), np.array([[0.0, 1.0, 0.0]]), CLASSES)
    assert 20 < found["loss"] < 40


def test_flat_names_are_metric_names():
    names = metrics.flat(metrics.scores(LABELS, SURE, CLASSES))
    assert {"macro_f1", "f1_virus", "auc_pneumonia", "auc_normal", "sensitivity", "loss"} <= set(names)
