"""Every score with its interval, computed for the sample and all resamples of its patients at once.

Row 0 of the weights is always the sample itself (every image once), so that a score and its interval come from the
same formula.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy import ndarray

from cxr.common.names import PNEUMONIA
from cxr.datasets.manifest import Manifest
from cxr.evaluation import bootstrap
from cxr.evaluation.statistics import Estimate, Scores
from cxr.serving import decision
from cxr.serving.probabilities import NEGATIVE, finding_probability
from cxr.settings.schema import GateSettings

# As `named` takes them: `auc_finding` stands for the AUC of whatever the finding is.
HIGHER_IS_BETTER: tuple[str, ...] = get_args(GateSettings.model_fields["metric"].annotation)
SUMMARY = ("macro_f1", "accuracy", "auc_finding", "sensitivity", "specificity")  # where there is no room for all


@dataclass(frozen=True)
class Sample:
    """True classes and patients of a set of images.

    Attributes:
        labels: class indices, `int64` of shape (n,).
        patients: names of the patients, of shape (n,).
        classes: class names, the negative one first.
        weights: how often each image counts, `uint8` of shape (1 + resamples, n); row 0 is the sample itself.
        finding: what all classes but the first have in common.
    """

    labels: ndarray
    patients: ndarray
    classes: tuple[str, ...]
    weights: ndarray
    finding: str = PNEUMONIA

    @classmethod
    def of(cls, split: Manifest, seed: int) -> "Sample":
        """The images of a split, with resamples drawn by `seed`; an image without a patient is a patient of its own."""
        return cls.from_labels(split.labels(), patients_of(split), split.classes, seed, split.finding)

    @classmethod
    def from_labels(
        cls, labels: ndarray, patients: ndarray, classes: tuple[str, ...], seed: int, finding: str = PNEUMONIA
    ) -> "Sample":
        """Images with these labels and patients, each of shape (n,), with resamples drawn by `seed`."""
        resamples = bootstrap.patient_weights(patients, seed)
        weights = np.concatenate([np.ones((1, len(labels)), np.uint8), resamples])
        return cls(labels, patients, classes, weights, finding)

    def subset(self, rows: ndarray) -> "Sample":
        """Some of the images, by mask or indices, with the same resamples restricted to them."""
        return Sample(self.labels[rows], self.patients[rows], self.classes, self.weights[:, rows], self.finding)


def patients_of(split: Manifest) -> ndarray:
    """The patient of each image of a split, of shape (n,); an image without one is a patient of its own."""
    patients = split.rows["patient"].where(split.rows["patient"] != "", split.rows["path"])
    return patients.to_numpy().astype(str)


def named(score: str, finding: str) -> str:
    """The name of a score in results and metrics: `auc_finding` is `auc_pneumonia` where that is the finding."""
    return f"auc_{finding}" if score == "auc_finding" else score


def resampled(sample: Sample, probabilities: ndarray) -> dict[str, ndarray]:
    """Every score by name, each of shape (1 + resamples,); NaN where it is undefined.

    `probabilities` is of shape (n, C). `loss` is the cross entropy in nats; precision, recall and F1 are those of the
    most likely class; sensitivity, specificity, PPV and NPV are those of the finding against the negative class at
    the operating point `argmax`. The AUC of the finding is `auc_FINDING` (see `named`). A class that is never predicted
    has no precision, and an F1 of 0.
    """
    return bootstrap.in_blocks(lambda weights: _scores(sample, probabilities, weights), sample.weights)


def _scores(sample: Sample, probabilities: ndarray, weights: ndarray) -> dict[str, ndarray]:
    labels, classes = sample.labels, sample.classes
    predicted = probabilities.argmax(1)
    counts = bootstrap.confusion(labels, predicted, len(classes), weights)
    likelihood = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        right, support, called = np.einsum("rcc->rc", counts), counts.sum(2), counts.sum(1)
        precision = np.where(called > 0, right / called, np.nan)
        recall = np.where(support > 0, right / support, np.nan)
        f1 = np.where(support > 0, 2 * right / (support + called), np.nan)
        values = {
            "loss": -bootstrap.mean(np.log(likelihood), weights),
            "accuracy": right.sum(1) / counts.sum((1, 2)),
            "balanced_accuracy": _mean_of_defined(recall),
            "macro_f1": _mean_of_defined(f1),
        }
    for i, name in enumerate(classes):
        values |= {f"precision_{name}": precision[:, i], f"recall_{name}": recall[:, i], f"f1_{name}": f1[:, i]}
        values |= ranking(labels == i, probabilities[:, i], weights, name)
    positive, threshold = finding_probability(probabilities), decision.operating_points({})[decision.ARGMAX]
    values |= ranking(labels != NEGATIVE, positive, weights, sample.finding)
    return values | decided(labels != NEGATIVE, decision.is_positive(positive, threshold), weights)


def ranking(truth: ndarray, score: ndarray, weights: ndarray, name: str) -> dict[str, ndarray]:
    """Area under the ROC curve and average precision, as `auc_NAME` and `average_precision_NAME`."""
    return {
        f"auc_{name}": bootstrap.auc(truth, score, weights),
        f"average_precision_{name}": bootstrap.average_precision(truth, score, weights),
    }


def decided(truth: ndarray, positive: ndarray, weights: ndarray) -> dict[str, ndarray]:
    """Sensitivity, specificity, PPV and NPV of decisions `positive` for `truth`, both bool of shape (n,)."""
    return {
        "sensitivity": bootstrap.mean(positive[truth].astype(np.float32), weights[:, truth]),
        "specificity": bootstrap.mean((~positive)[~truth].astype(np.float32), weights[:, ~truth]),
        "ppv": _share(truth, positive, weights),
        "npv": _share(~truth, ~positive, weights),
    }


def predictive_values(sensitivity: ndarray, specificity: ndarray, prevalence: float) -> tuple[ndarray, ndarray]:
    """PPV and NPV at a prevalence of the finding, by Bayes' rule."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ill, healthy = prevalence, 1 - prevalence
        ppv = sensitivity * ill / (sensitivity * ill + (1 - specificity) * healthy)
        npv = specificity * healthy / (specificity * healthy + (1 - sensitivity) * ill)
    return ppv, npv


def estimate(values: ndarray) -> Estimate:
    """The score in row 0, and the interval over the other rows."""
    return bootstrap.percentile(None if np.isnan(values[0]) else float(values[0]), values[1:])


def summarised(sample: Sample, resampled: dict[str, ndarray], among: dict[str, ndarray] | None = None) -> Scores:
    """Scores of a sample with their intervals; those of shares are of `bootstrap.of_share`.

    Args:
        sample: the images.
        resampled: the sample and its resamples by the name of the score, each of shape (1 + resamples,).
        among: the images that a share is of, bool of shape (n,), by its name; known for accuracy, sensitivity,
            specificity and recalls.
    """
    finding = sample.labels != NEGATIVE
    known = {"accuracy": np.ones_like(finding), "sensitivity": finding, "specificity": ~finding}
    known |= {f"recall_{name}": sample.labels == i for i, name in enumerate(sample.classes)}
    known |= among or {}
    found = {}
    for name, values in resampled.items():
        patients = len(np.unique(sample.patients[known[name]])) if name in known else 0
        found[name] = bootstrap.of_share(float(values[0]), values[1:], patients)
    return found


def is_widened(shown: Estimate, resampled: ndarray) -> bool:
    """Whether an interval is wider than its resamples, which then say too little of what follows from them, too."""
    return shown != estimate(resampled)


def estimates(sample: Sample, probabilities: ndarray) -> Scores:
    """Every score with its interval; areas under the ROC curve also with DeLong's, as `auc_NAME_delong`."""
    predicted = probabilities.argmax(1)
    positive = decision.is_positive(finding_probability(probabilities), decision.operating_points({})[decision.ARGMAX])
    called = {f"precision_{name}": predicted == i for i, name in enumerate(sample.classes)}
    by_name = summarised(sample, resampled(sample, probabilities), called | {"ppv": positive, "npv": ~positive})
    rankings = {name: (sample.labels == i, probabilities[:, i]) for i, name in enumerate(sample.classes)}
    rankings[sample.finding] = (sample.labels != NEGATIVE, finding_probability(probabilities))
    return by_name | {f"auc_{name}_delong": bootstrap.delong(*ranked) for name, ranked in rankings.items()}


def confusion(labels: ndarray, probabilities: ndarray, classes: tuple[str, ...]) -> ndarray:
    """Number of images by true class (rows) and most likely class (columns), of shape (C, C)."""
    once = np.ones((1, len(labels)), np.float32)
    return bootstrap.confusion(labels, probabilities.argmax(1), len(classes), once)[0].astype(int)


def _share(truth: ndarray, among: ndarray, weights: ndarray) -> ndarray:
    return bootstrap.mean(truth[among].astype(np.float32), weights[:, among])


def _mean_of_defined(values: ndarray) -> ndarray:
    """Mean over the classes that are present in a resample."""
    defined = ~np.isnan(values)
    return np.where(defined, values, 0).sum(1) / np.maximum(defined.sum(1), 1)
