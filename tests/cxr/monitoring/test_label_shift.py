"""Shares of classes without truths."""

import numpy as np
import pytest

from cxr.monitoring import label_shift

CONFUSION = np.array([[180, 15, 5], [10, 90, 20], [5, 25, 50]])


def drawn(rng, shares: list[float], images: int) -> np.ndarray:
    """Numbers of predicted classes of images with these true shares, called as in `CONFUSION`."""
    called = CONFUSION / CONFUSION.sum(1, keepdims=True)
    return sum(rng.multinomial(count, row) for count, row in zip(rng.multinomial(images, shares), called, strict=True))


def test_exact_counts_give_exact_shares():
    shares = np.array([0.2, 0.5, 0.3])
    predicted = shares @ (CONFUSION / CONFUSION.sum(1, keepdims=True)) * 10_000
    found = label_shift.estimate(CONFUSION, predicted, 1.0, 0)
    np.testing.assert_allclose([share.value for share in found.values], shares, atol=1e-9)
    assert all(share.low < share.value < share.high for share in found.values)


def test_intervals_contain_the_truth_as_often_as_said():
    rng, truth, inside = np.random.default_rng(0), [0.25, 0.5, 0.25], []
    for round_ in range(150):
        confusion = rng.multinomial(400, (CONFUSION / 400).ravel()).reshape(3, 3)
        found = label_shift.estimate(confusion, drawn(rng, truth, 300), 1.0, round_)
        inside.append([share.low <= at <= share.high for share, at in zip(found.values, truth, strict=True)])
    assert 0.90 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize(("known", "images", "chance"), [(400, 200, 0.01), (400, 30, 0.01), (350, 30, 0.001)])
@pytest.mark.parametrize("rounds", [200, pytest.param(600, marks=pytest.mark.long)])
def test_without_shift_the_change_is_beyond_chance_as_rarely_as_said(known, images, chance, rounds):
    """Also in small samples, where many estimates end at 0: there, the answers themselves tell of no error."""
    rng, usual, over = np.random.default_rng(0), CONFUSION.sum(1) / 400, []
    for _ in range(rounds):
        confusion = rng.multinomial(known, (CONFUSION / 400).ravel()).reshape(3, 3)
        found = label_shift.estimate(confusion, drawn(rng, usual, images), 1.0, 0)
        change = np.array([share.value for share in found.values]) - confusion.sum(1) / known
        over.append(np.abs(change) > label_shift.change_by_chance(confusion, images, 1.0, chance))
    assert np.mean(over) <= chance + 3 * np.sqrt(chance / rounds / 3)


def test_a_shift_is_beyond_chance():
    rng, over = np.random.default_rng(0), []
    for _ in range(50):
        found = label_shift.estimate(CONFUSION, drawn(rng, [0.9, 0.05, 0.05], 100), 1.0, 0)
        change = abs(found.values[0].value - 0.5)
        over.append(change > label_shift.change_by_chance(CONFUSION, 100, 1.0, 1e-4)[0])
    assert np.mean(over) > 0.95


def test_a_model_that_cannot_tell_classes_apart_gives_no_estimate_and_says_why():
    blind = np.array([[100, 5, 5], [5, 50, 50], [5, 51, 50]])
    found = label_shift.estimate(blind, np.array([50, 25, 25]), 1.0, 0)
    assert not found.values and "condition number" in found.why_not and found.condition > label_shift.WORST
    empty = np.array([[100, 5, 0], [5, 50, 0], [0, 0, 0]])
    found = label_shift.estimate(empty, np.array([50, 25, 25]), 1.0, 0)
    assert not found.values and found.condition is None and "no validation images" in found.why_not


def test_the_condition_is_that_of_the_shares():
    called = (CONFUSION / CONFUSION.sum(1, keepdims=True)).T
    assert label_shift.condition(CONFUSION) == pytest.approx(np.linalg.cond(called))
