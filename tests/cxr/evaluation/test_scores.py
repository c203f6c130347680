"""Scores are those of scikit-learn, on the sample and on every resample of patients; undefined scores are None."""

import time

import numpy as np
import pytest
from sklearn import metrics as sk

from cxr.evaluation import bootstrap, scores
from cxr.evaluation.assess import operating_point
from cxr.evaluation.scores import Sample
from tests.helpers import CLASSES, small_set

LABELS = np.array([0, 0, 1, 1, 1, 2, 2, 2])
PROBABILITIES = np.array([
    [0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.1, 0.7, 0.2], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6],
    [0.1, 0.2, 0.7], [0.6, 0.1, 0.3], [0.0, 0.1, 0.9],
])  # fmt: skip


def sample_of(labels: np.ndarray) -> Sample:
    """A sample in which every image has a patient of its own."""
    return Sample.from_labels(labels, np.arange(len(labels)).astype(str), CLASSES, seed=0)


def values_of(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    return {name: score.value for name, score in scores.estimates(sample_of(labels), probabilities).items()}


def random_sample(n: int = 90, patients: int = 40, seed: int = 0) -> tuple[Sample, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Sample.from_labels(labels, rng.integers(0, patients, n).astype(str), CLASSES, seed=1), probabilities


def reference(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """The same scores by scikit-learn, for labels with all classes."""
    predicted, positive = probabilities.argmax(1), probabilities[:, 0] <= 0.5
    precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, predicted, zero_division=0)
    values = {
        "loss": sk.log_loss(labels, probabilities),
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
        "sensitivity": sk.recall_score(labels != 0, positive),
        "specificity": sk.recall_score(labels == 0, ~positive),
        "ppv": sk.precision_score(labels != 0, positive),
        "npv": sk.precision_score(labels == 0, ~positive),
    }
    rankings = {name: (labels == i, probabilities[:, i]) for i, name in enumerate(CLASSES)}
    rankings["pneumonia"] = (labels != 0, 1 - probabilities[:, 0])
    for i, name in enumerate(CLASSES):
        values |= {f"precision_{name}": precision[i], f"recall_{name}": recall[i], f"f1_{name}": f1[i]}
    for name, ranked in rankings.items():
        values[f"auc_{name}"] = values[f"auc_{name}_delong"] = sk.roc_auc_score(*ranked)
        values[f"average_precision_{name}"] = sk.average_precision_score(*ranked)
    return values


def test_a_worked_example():
    values = values_of(LABELS, PROBABILITIES)
    assert values["accuracy"] == pytest.approx(5 / 8)
    assert values["precision_normal"] == pytest.approx(1 / 2)
    assert values["recall_bacteria"] == pytest.approx(2 / 3)
    assert values["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3 + 2 / 3) / 3)
    assert values["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 2 / 3) / 3)
    assert values["loss"] == pytest.approx(-np.log([0.8, 0.3, 0.7, 0.5, 0.3, 0.7, 0.3, 0.9]).mean())
    assert values["sensitivity"] == pytest.approx(5 / 6)
    assert values["specificity"] == pytest.approx(1 / 2)
    assert values["ppv"] == pytest.approx(5 / 6)
    # 12 pairs of a normal and a pneumonia; by 1 - p(normal): 0.2 and 0.7 against 0.9 0.8 0.9 0.9 0.4 1.0
    assert values["auc_pneumonia"] == pytest.approx(11 / 12)


def test_the_confusion_matrix_has_the_truth_in_its_rows():
    assert scores.confusion(LABELS, PROBABILITIES, CLASSES).tolist() == [[1, 1, 0], [0, 2, 1], [1, 0, 2]]


def test_a_class_that_is_absent_leaves_scores_undefined():
    values = values_of(np.array([1, 1]), PROBABILITIES[2:4])
    assert values["recall_normal"] is None
    assert values["auc_pneumonia"] is None
    assert values["specificity"] is None
    assert values["macro_f1"] == 1.0


def test_a_certain_mistake_has_a_finite_loss():
    assert 20 < values_of(np.array([0]), np.array([[0.0, 1.0, 0.0]]))["loss"] < 40


def test_the_sample_itself_scores_as_in_scikit_learn():
    sample, probabilities = random_sample()
    values = {name: score.value for name, score in scores.estimates(sample, probabilities).items()}
    assert values == pytest.approx(reference(sample.labels, probabilities), abs=1e-6)


def test_a_resample_scores_as_its_images_do():
    sample, probabilities = random_sample()
    resampled = scores.resampled(sample, probabilities)
    for row in (1, 7, 200):
        rows = np.repeat(np.arange(len(sample.labels)), sample.weights[row].astype(int))
        expected = reference(sample.labels[rows], probabilities[rows])
        for name, values in resampled.items():
            assert values[row] == pytest.approx(expected[name], abs=1e-5), name


def test_patients_are_drawn_whole():
    sample, _ = random_sample()
    for patient in np.unique(sample.patients):
        assert (np.ptp(sample.weights[:, sample.patients == patient], axis=1) == 0).all()


def test_several_images_of_a_patient_make_intervals_wider():
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 3, 40), 5)
    right = np.repeat(rng.random(40) < 0.7, 5)
    predicted = np.where(right, labels, (labels + 1) % 3)
    probabilities = 0.9 * np.eye(3)[predicted] + 0.1 / 3
    widths = []
    for patients in (np.arange(200), np.repeat(np.arange(40), 5)):
        sample = Sample.from_labels(labels, patients.astype(str), CLASSES, seed=0)
        accuracy = scores.estimates(sample, probabilities)["accuracy"]
        widths.append(accuracy.high - accuracy.low)
    assert widths[1] > 1.7 * widths[0]


@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [0, 0, 0]], ids=["only bacteria", "three normals"])
def test_a_split_with_one_class_has_the_scores_that_are_defined(labels):
    values = values_of(np.array(labels), np.full((len(labels), 3), 1 / 3))
    assert values["auc_pneumonia"] is None and values["auc_pneumonia_delong"] is None
    assert values["accuracy"] in (0.0, 1.0)


def test_a_model_that_always_predicts_one_class():
    sample, _ = random_sample()
    values = values_of(sample.labels, np.tile([0.2, 0.5, 0.3], (len(sample.labels), 1)))
    assert values["sensitivity"] == 1 and values["specificity"] == 0
    assert values["npv"] is None
    assert values["auc_pneumonia"] == pytest.approx(0.5)


def test_an_image_without_a_patient_is_a_patient_of_its_own(tmp_path):
    split = small_set(tmp_path).split("test")
    split.rows["patient"] = ""
    assert len(np.unique(Sample.of(split, 0).patients)) == len(split)


def test_predictive_values_follow_bayes():
    # Textbook example: sensitivity 0.9, specificity 0.95, prevalence 0.1.
    ppv, npv = scores.predictive_values(np.array([0.9]), np.array([0.95]), 0.1)
    assert ppv[0] == pytest.approx(0.09 / (0.09 + 0.045))
    assert npv[0] == pytest.approx(0.855 / (0.855 + 0.01))


def test_a_test_split_of_the_usual_size_takes_seconds():
    sample, probabilities = random_sample(624, 300)
    assert len(sample.weights) == 1 + bootstrap.RESAMPLES == 2001
    started = time.process_time()
    scores.estimates(sample, probabilities)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("classes", "finding"),
    [
        (("normal", "pneumonia"), "pneumonia"),
        (("normal", "bacteria", "virus"), "pneumonia"),
        (("healthy", "tuberculosis"), "tuberculosis"),
        (("clear", "mass", "effusion", "edema"), "opacity"),
    ],
)
def test_the_names_of_the_scores_follow_the_classes_and_the_finding(classes, finding):
    labels = np.arange(20) % len(classes)
    sample = Sample.from_labels(labels, labels.astype(str), classes, 0, finding)
    kinds = ("precision", "recall", "f1", "auc", "average_precision")
    names = ["loss", "accuracy", "balanced_accuracy", "macro_f1"]
    names += [f"{kind}_{name}" for name in classes for kind in kinds]
    ranked = [f"auc_{finding}", f"average_precision_{finding}"]
    names += [name for name in ranked if name not in names]
    names += ["sensitivity", "specificity", "ppv", "npv"]
    found = scores.estimates(sample.subset(np.arange(20)), np.full((20, len(classes)), 1 / len(classes)))
    assert list(found) == [*names, *(f"auc_{name}_delong" for name in dict.fromkeys([*classes, finding]))]
    assert scores.named("auc_finding", finding) == f"auc_{finding}" and scores.named("ppv", finding) == "ppv"


def test_a_class_that_is_never_predicted_has_no_precision():
    """Neither 0, as if it had been predicted wrongly, nor PPV undefined beside a precision of 0."""
    found = values_of(LABELS, np.tile([0.6, 0.3, 0.1], (len(LABELS), 1)))
    assert found["precision_virus"] is None and found["ppv"] is None
    assert found["f1_virus"] == found["recall_virus"] == 0 and found["precision_normal"] == pytest.approx(2 / 8)


def test_no_share_of_a_few_patients_is_certain():
    """Two patients of ten images each, all right: their interval is that of two trials, not of twenty."""
    labels = np.repeat([0, 1, 2], 20)
    patients = np.repeat([f"p{n}" for n in range(6)], 10)
    sample = Sample.from_labels(labels, patients, CLASSES, seed=0)
    found = scores.estimates(sample, np.eye(3)[labels])
    two, four, six = (0.025 ** (1 / n) for n in (2, 4, 6))
    lows = {"specificity": two, "npv": two, "sensitivity": four, "ppv": four, "accuracy": six}
    lows |= {f"{score}_{name}": two for score in ("recall", "precision") for name in CLASSES}
    assert {name: (found[name].low, found[name].high) for name in lows} == {
        name: (pytest.approx(low), 1.0) for name, low in lows.items()
    }


def test_predictive_values_without_a_mistake_are_no_surer_than_what_they_follow_from():
    labels = np.repeat([0, 1], 10)
    sample = Sample.from_labels(labels, np.arange(20).astype(str), CLASSES, seed=0)
    point = operating_point(sample, np.eye(3)[labels], "argmax", 0.5, [0.1])
    low = point.scores["sensitivity"].low
    assert low == point.scores["specificity"].low == pytest.approx(0.025 ** (1 / 10))
    (found,) = point.prevalences
    ppv, npv = scores.predictive_values(low, low, 0.1)
    assert (found.ppv.value, found.ppv.low, found.ppv.high) == pytest.approx((1, ppv, 1))
    assert (found.npv.value, found.npv.low, found.npv.high) == pytest.approx((1, npv, 1))


def test_predictive_values_of_a_model_that_calls_everything_positive_are_not_certain():
    labels = np.repeat([0, 1], [4, 8])
    sample = Sample.from_labels(labels, np.arange(12).astype(str), CLASSES, seed=0)
    point = operating_point(sample, np.tile([0.1, 0.9, 0.0], (12, 1)), "argmax", 0.5, [0.1])
    (found,) = point.prevalences
    assert found.ppv.value == pytest.approx(0.1) and found.ppv.low < 0.1 < found.ppv.high
    assert found.npv.value is None
