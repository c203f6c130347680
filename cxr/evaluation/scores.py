"""Every score with its interval: one pass over all resamples of the patients, and the images themselves as the first.

Row 0 of the weights is always the sample itself (every image once), so that a score and its interval come from the
same formula.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy import ndarray

from cxr.datasets.manifest import Manifest
from cxr.evaluation import bootstrap
from cxr.evaluation.bootstrap import Estimate
from cxr.serving.probabilities import NORMAL, pneumonia_probability

HIGHER_IS_BETTER = ("accuracy", "balanced_accuracy", "macro_f1", "auc_pneumonia", "sensitivity", "specificity")


@dataclass(frozen=True)
class Sample:
    """Truth and patients of some images.

    Attributes:
        labels: class indices, `int64` of shape (n,).
        patients: names of shape (n,).
        classes: class names.
        weights: how often each image counts, of shape (1 + resamples, n); row 0 is the sample itself.
    """

    labels: ndarray
    patients: ndarray
    classes: tuple[str, ...]
    weights: ndarray

    @classmethod
    def of(cls, part: Manifest, seed: int) -> "Sample":
        """The images of a part of a manifest, with resamples drawn by `seed`; no patient: the image is its own."""
        names = part.rows["patient"].where(part.rows["patient"] != "", part.rows["path"]).to_numpy().astype(str)
        return cls.made(part.labels(), names, part.classes, seed)

    @classmethod
    def made(cls, labels: ndarray, patients: ndarray, classes: tuple[str, ...], seed: int) -> "Sample":
        drawn = bootstrap.patient_weights(patients, seed)
        return cls(labels, patients, classes, np.concatenate([np.ones((1, len(labels)), np.float32), drawn]))

    def subset(self, rows: ndarray) -> "Sample":
        """Some of the images (a bool mask or indices); resamples of them are those of the whole, cut."""
        return Sample(self.labels[rows], self.patients[rows], self.classes, self.weights[:, rows])


def resampled(sample: Sample, probabilities: ndarray) -> dict[str, ndarray]:
    """Every score by name, each of shape (1 + resamples,); NaN where it does not exist.

    `probabilities` is of shape (n, C). `loss` is the cross entropy in nats; precision, recall and F1 go with the
    predicted class; sensitivity, specificity, PPV and NPV are those of pneumonia against normal.
    """
    labels, weights, classes = sample.labels, sample.weights, sample.classes
    predicted = probabilities.argmax(1)
    table = bootstrap.confusion(labels, predicted, len(classes), weights)
    truth = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        right, support, called = np.einsum("rcc->rc", table), table.sum(2), table.sum(1)
        # As in scikit-learn with zero_division=0: a class that is never predicted has precision 0.
        precision = np.where(called > 0, right / np.maximum(called, 1e-9), 0.0)
        recall = np.where(support > 0, right / support, np.nan)
        f1 = np.where(support > 0, 2 * right / (support + called), np.nan)
        found = {
            "loss": -bootstrap.mean(np.log(truth), weights),
            "accuracy": right.sum(1) / table.sum((1, 2)),
            "balanced_accuracy": _mean_of_known(recall),
            "macro_f1": _mean_of_known(f1),
        }
    for i, name in enumerate(classes):
        own = {"precision": precision[:, i], "recall": recall[:, i], "f1": f1[:, i]}
        found |= {f"{key}_{name}": values for key, values in own.items()}
        found |= ranking(labels == i, probabilities[:, i], weights, name)
    found |= ranking(labels != NORMAL, pneumonia_probability(probabilities), weights, "pneumonia")
    return found | decided(labels != NORMAL, predicted != NORMAL, weights)


def ranking(truth: ndarray, score: ndarray, weights: ndarray, name: str) -> dict[str, ndarray]:
    """Area under the ROC curve and average precision."""
    return {
        f"auc_{name}": bootstrap.auc(truth, score, weights),
        f"average_precision_{name}": bootstrap.average_precision(truth, score, weights),
    }


def decided(truth: ndarray, positive: ndarray, weights: ndarray) -> dict[str, ndarray]:
    """Sensitivity, specificity, PPV and NPV of a decision, bool (n,), for the truth, bool (n,)."""
    return {
        "sensitivity": bootstrap.mean(positive[truth].astype(np.float32), weights[:, truth]),
        "specificity": bootstrap.mean((~positive)[~truth].astype(np.float32), weights[:, ~truth]),
        "ppv": _share(truth, positive, weights),
        "npv": _share(~truth, ~positive, weights),
    }


def predictive_values(sensitivity: ndarray, specificity: ndarray, prevalence: float) -> tuple[ndarray, ndarray]:
    """PPV and NPV where a share `prevalence` of the children has pneumonia (Bayes' rule)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ill, well = prevalence, 1 - prevalence
        ppv = sensitivity * ill / (sensitivity * ill + (1 - specificity) * well)
        npv = specificity * well / (specificity * well + (1 - sensitivity) * ill)
    return ppv, npv


def estimate(values: ndarray) -> Estimate:
    """The score in row 0, and the interval over the other rows."""
    return bootstrap.percentile(None if np.isnan(values[0]) else float(values[0]), values[1:])


def estimates(sample: Sample, probabilities: ndarray) -> dict[str, dict[str, float | None]]:
    """Every score with its interval (`value`, `low`, `high`); areas also with DeLong's, as `auc_..._delong`."""
    found = {name: asdict(estimate(values)) for name, values in resampled(sample, probabilities).items()}
    questions = {name: (sample.labels == i, probabilities[:, i]) for i, name in enumerate(sample.classes)}
    questions["pneumonia"] = (sample.labels != NORMAL, pneumonia_probability(probabilities))
    found |= {f"auc_{name}_delong": asdict(bootstrap.delong(*of)) for name, of in questions.items()}
    return found


def _share(truth: ndarray, among: ndarray, weights: ndarray) -> ndarray:
    return bootstrap.mean(truth[among].astype(np.float32), weights[:, among])


def _mean_of_known(values: ndarray) -> ndarray:
    """Mean over the classes that a resample has."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1)
