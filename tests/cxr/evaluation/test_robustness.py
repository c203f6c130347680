"""Unchanged images score under the changes as in the evaluation, and shortcuts are told from chance."""

import numpy as np
import pytest

from cxr.evaluation import robustness, scores
from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from cxr.loading import changes
from cxr.loading.changes import CHANGES
from cxr.loading.rasters import ImageDataset
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import softmax
from tests.helpers import CLASSES, network, probabilities, small_set


def test_unchanged_images_score_as_in_the_evaluation(tmp_path):
    net = network()
    bundle, split = Bundle(net, temperature=1.3), small_set(tmp_path).split("test")
    predictor, dataset = Predictor(bundle), ImageDataset(split, net.spec)
    maps = ClassActivationMap.of(predictor, net)
    result = robustness.robustness(
        predictor, maps, split, dataset, temperature=bundle.temperature, seed=0, most=None, batch_size=4
    )
    evaluated = scores.estimates(Sample.of(split, 0), probabilities(bundle, split))
    first = result.table[0]
    assert first.changed == 0
    assert first.scores["macro_f1"] == evaluated["macro_f1"]
    assert result.images == len(split) and 0 <= result.inside <= 1
    assert len(result.table) == len(CHANGES)


def test_the_shortcuts_are_scores_of_what_is_left_of_the_images(tmp_path, monkeypatch):
    split = small_set(tmp_path).split("test")
    net = network()
    table = {"unchanged": changes.border_alone, changes.BORDER_MASKED: changes.lungs_blurred}
    monkeypatch.setattr(robustness, "CHANGES", table)
    result = robustness.robustness(
        *(Predictor(Bundle(net)), None, split, ImageDataset(split, net.spec)),
        temperature=1.0,
        seed=0,
        most=None,
        batch_size=4,
    )
    alone, blurred, masked = result.shortcuts
    assert alone.scores == result.table[0].scores and blurred.scores == masked.scores == result.table[1].scores
    assert alone.scores != blurred.scores
    monkeypatch.undo()
    rasters, predictor = ImageDataset(split, net.spec).rasters(np.arange(len(split))), Predictor(Bundle(net))
    served = robustness.shortcuts(lambda images: softmax(predictor.logits(images)), rasters, Sample.of(split, 0))
    for ours, theirs in zip(served[:2], (alone, blurred), strict=True):
        assert [score.value for score in ours.scores.values()] == pytest.approx(
            [score.value for score in theirs.scores.values()]
        )
    assert all(difference.value == 0 for difference in alone.differences.values())
    assert [test.expected for test in result.shortcuts] == ["near chance", "near chance", "near unchanged"]


SAMPLE = Sample.from_labels(np.arange(60) % 3, np.arange(60).astype(str), CLASSES, 0)


def resampled(quality: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Scores of answers that tell 60 images of three classes apart the better, the higher the quality."""
    logits = np.random.default_rng(seed).normal(size=(60, 3)) + quality * np.eye(3)[SAMPLE.labels]
    return scores.resampled(SAMPLE, softmax(logits))


def test_scores_near_chance_are_told_from_those_that_are_not():
    good, chance = resampled(4.0), resampled(0.0, seed=1)
    assert robustness.near_chance("border", good, chance, SAMPLE).as_expected
    told = robustness.near_chance("border", good, good, SAMPLE)
    assert told.as_expected is False
    assert "AUC" in told.words and "macro-F1" in told.words
    inverted = robustness.near_chance("border", good, resampled(-4.0), SAMPLE)
    assert inverted.as_expected is False and "excludes 0.5" in inverted.words and "macro-F1" not in inverted.words


def test_a_loss_is_told_from_chance():
    good = resampled(4.0)
    assert robustness.near_unchanged("inside", good, good, SAMPLE).as_expected
    assert robustness.near_unchanged("inside", resampled(0.3), resampled(0.3, seed=4), SAMPLE).as_expected  # by chance
    lost = robustness.near_unchanged("inside", good, resampled(0.0), SAMPLE)
    assert lost.as_expected is False and "the AUC falls by" in lost.words
    assert robustness.near_unchanged("inside", resampled(0.0), good, SAMPLE).as_expected  # a gain is no loss


def test_images_of_one_class_have_no_verdict():
    sample = Sample.from_labels(np.ones(9, int), np.arange(9).astype(str), CLASSES, 0)
    one = scores.resampled(sample, np.full((9, 3), 1 / 3))
    assert robustness.near_chance("border", one, one, sample).as_expected is None
    assert robustness.near_unchanged("inside", one, one, sample).as_expected is None
