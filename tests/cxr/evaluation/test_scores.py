"""Scores are scikit-learn's, on the sample and on every resample of patients; what does not exist is None."""

import json
import time

import numpy as np
import pytest
from sklearn import metrics as sk

from cxr.evaluation import bootstrap, metrics, scores
from cxr.evaluation.scores import Sample
from tests.helpers import CLASSES, small_set


def made(n: int = 90, patients: int = 40, seed: int = 0) -> tuple[Sample, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Sample.made(labels, rng.integers(0, patients, n).astype(str), CLASSES, seed=1), probabilities


def test_the_sample_itself_scores_as_everywhere_else():
    sample, probabilities = made()
    ours = {k: v["value"] for k, v in scores.estimates(sample, probabilities).items()}
    theirs = metrics.flat(metrics.scores(sample.labels, probabilities, CLASSES))
    for name in theirs.keys() - {"images"} - {n for n in theirs if n.startswith("support")}:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-6), name


def test_a_resample_scores_as_its_images_do():
    sample, probabilities = made()
    found = scores.resampled(sample, probabilities)
    for row in (1, 7, 200):
        rows = np.repeat(np.arange(len(sample.labels)), sample.weights[row].astype(int))
        labels, own = sample.labels[rows], probabilities[rows]
        assert found["macro_f1"][row] == pytest.approx(sk.f1_score(labels, own.argmax(1), average="macro"), abs=1e-6)
        assert found["auc_pneumonia"][row] == pytest.approx(sk.roc_auc_score(labels != 0, 1 - own[:, 0]), abs=1e-6)
        assert found["average_precision_virus"][row] == pytest.approx(
            sk.average_precision_score(labels == 2, own[:, 2]), abs=1e-6
        )
        assert found["loss"][row] == pytest.approx(sk.log_loss(labels, own, labels=[0, 1, 2]), abs=1e-5)
        called = own.argmax(1) != 0
        assert found["ppv"][row] == pytest.approx((labels[called] != 0).mean(), abs=1e-6)


def test_patients_are_drawn_whole():
    sample, _ = made()
    for patient in np.unique(sample.patients):
        assert (np.ptp(sample.weights[:, sample.patients == patient], axis=1) == 0).all()


def test_images_of_one_patient_make_intervals_wider():
    """The same answers, once from as many patients as images and once from few: fewer patients say less."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 3, 40), 5)
    right = np.repeat(rng.random(40) < 0.7, 5)
    predicted = np.where(right, labels, (labels + 1) % 3)
    probabilities = 0.9 * np.eye(3)[predicted] + 0.1 / 3
    widths = []
    for patients in (np.arange(200), np.repeat(np.arange(40), 5)):
        sample = Sample.made(labels, patients.astype(str), CLASSES, seed=0)
        own = scores.estimates(sample, probabilities)["accuracy"]
        widths.append(own["high"] - own["low"])
    assert widths[1] > 1.7 * widths[0]


@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [0, 0, 0]], ids=["only bacteria", "three normals"])
def test_a_part_with_one_class_has_what_exists(labels):
    sample = Sample.made(np.array(labels), np.arange(len(labels)).astype(str), CLASSES, seed=0)
    found = scores.estimates(sample, np.full((len(labels), 3), 1 / 3))
    assert found["auc_pneumonia"]["value"] is None and found["auc_pneumonia_delong"]["value"] is None
    assert found["accuracy"]["value"] in (0.0, 1.0)
    json.dumps(found, allow_nan=False)


def test_a_model_that_always_says_one_class():
    sample, _ = made()
    found = scores.estimates(sample, np.tile([0.2, 0.5, 0.3], (len(sample.labels), 1)))
    assert found["sensitivity"]["value"] == 1 and found["specificity"]["value"] == 0
    assert found["npv"]["value"] is None
    assert found["auc_pneumonia"]["value"] == pytest.approx(0.5)


def test_no_patient_means_each_image_is_its_own(tmp_path):
    part = small_set(tmp_path).split("test")
    part.rows["patient"] = ""
    assert len(np.unique(Sample.of(part, 0).patients)) == len(part)


def test_predictive_values_follow_bayes():
    # Textbook example: sensitivity 0.9, specificity 0.95, prevalence 0.1.
    ppv, npv = scores.predictive_values(np.array([0.9]), np.array([0.95]), 0.1)
    assert ppv[0] == pytest.approx(0.09 / (0.09 + 0.045))
    assert npv[0] == pytest.approx(0.855 / (0.855 + 0.01))


def test_a_test_part_of_the_usual_size_takes_seconds():
    sample, probabilities = made(624, 300)
    assert len(sample.weights) == 1 + bootstrap.RESAMPLES == 2001
    started = time.perf_counter()
    scores.estimates(sample, probabilities)
    assert time.perf_counter() - started < 10
