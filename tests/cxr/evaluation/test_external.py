"""Scores on another set are those of `evaluate`; a set that lacks a class defines fewer; two sets are independent."""

import numpy as np
import pytest

from cxr.evaluation import external, scores
from cxr.evaluation.external import Thresholds
from cxr.evaluation.scores import Sample

BINARY = ("normal", "pneumonia")
POINTS = Thresholds({"argmax": 0.5, "sensitive": 0.3}, [0.1])


def drawn(n: int, seed: int, shift: float = 2.0, classes=BINARY) -> tuple[Sample, np.ndarray]:
    """A sample of random answers, better with a larger shift."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), n)
    logits = rng.normal(size=(n, len(classes))) + shift * np.eye(len(classes))[labels]
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Sample.from_labels(labels, rng.integers(0, n, n).astype(str), classes, seed), chances


def test_scores_are_those_of_evaluate():
    sample, chances = drawn(80, 0)
    result = external.image_scores(sample, chances, POINTS)
    assert result.scores == scores.estimates(sample, chances) and result.undefined == []
    assert [point.threshold for point in result.operating_points] == [0.5, 0.3]


@pytest.mark.parametrize("only", [0, 1])
def test_a_set_of_one_class_defines_only_what_needs_no_other(only):
    sample, chances = drawn(60, 1)
    alone = sample.subset(sample.labels == only)
    result = external.image_scores(alone, chances[sample.labels == only], POINTS)
    defined = {name for name, score in result.scores.items() if score.value is not None}
    assert defined == {"loss", "accuracy", "specificity" if only == 0 else "sensitivity", f"recall_{BINARY[only]}"}
    assert set(result.undefined) == set(result.scores) - defined
    at = result.operating_points[1].scores
    assert {name for name, score in at.items() if score.value is not None} == defined & {"sensitivity", "specificity"}


def test_means_over_the_classes_need_all_of_them():
    sample, chances = drawn(90, 2, classes=("normal", "bacteria", "virus"))
    rows = sample.labels != 2
    result = external.image_scores(sample.subset(rows), chances[rows], POINTS)
    assert {"macro_f1", "balanced_accuracy", "auc_virus", "f1_virus"} <= set(result.undefined)
    assert result.scores["auc_pneumonia"].value is not None and result.scores["auc_bacteria"].value is not None


def test_a_difference_is_external_minus_internal_with_the_interval_of_independent_sets():
    internal, there = drawn(300, 3, shift=3.0)
    ours, here = drawn(200, 4, shift=1.0)
    rows = external.side_by_side((internal, there), (ours, here), seed=0)
    row = rows["auc_pneumonia"]
    assert row.difference.value == pytest.approx(row.external.value - row.internal.value) and row.difference.high < 0
    spread = {
        name: scores.resampled(*side)["auc_pneumonia"][1:].std()
        for name, side in (("there", (internal, there)), ("here", (ours, here)))
    }
    expected = np.hypot(spread["there"], spread["here"])  # of a difference of independent estimates
    assert (row.difference.high - row.difference.low) / (2 * 1.96) == pytest.approx(expected, rel=0.1)


def test_a_set_compared_with_itself_still_has_the_interval_of_two_sets():
    """Resamples drawn from one seed are the same: paired row by row, every difference would be 0."""
    sample, chances = drawn(200, 5)
    row = external.side_by_side((sample, chances), (sample, chances), seed=0)["accuracy"]
    assert row.difference.value == 0 and row.difference.high - row.difference.low > row.external.high - row.external.low


def test_a_difference_from_a_score_without_mistakes_is_no_surer_than_that():
    """12 patients of the model's own test split, all right, are no proof that 194 of 200 here are a loss."""
    here = np.ones(200, int), np.where(np.arange(200)[:, None] < 6, [0.9, 0.1], [0.1, 0.9])
    sets = [(np.ones(12, int), np.tile([0.1, 0.9], (12, 1))), here]
    internal, ours = (
        (Sample.from_labels(labels, np.arange(len(labels)).astype(str), ("normal", "pneumonia"), 0), chances)
        for labels, chances in sets
    )
    row = external.side_by_side(internal, ours, seed=0)["sensitivity"]
    assert row.internal.low == pytest.approx(0.735, abs=1e-3) and row.difference.value == pytest.approx(-0.03)
    assert row.difference.low < -0.03 and row.difference.high > 0.2


def test_a_score_that_one_set_lacks_has_no_difference():
    internal, ours = drawn(100, 6), drawn(100, 7)
    rows = ours[0].labels == 1
    found = external.side_by_side(internal, (ours[0].subset(rows), ours[1][rows]), seed=0)
    assert found["auc_pneumonia"].difference.value is None and found["auc_pneumonia"].internal.value is not None
    assert found["sensitivity"].difference.value is not None


def test_scores_of_very_few_images_are_defined_or_none(recwarn):
    sample, chances = drawn(40, 8)
    rows = np.array([3, 17])  # most resamples have neither
    result = external.image_scores(sample.subset(rows), chances[rows], POINTS)
    assert result.images == 2 and result.scores["accuracy"].value is not None and not recwarn.list
