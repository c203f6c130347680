"""Scores of probabilities against the truth; plain scikit-learn, and None where a score does not exist."""

from typing import Any

import numpy as np
from numpy import ndarray
from sklearn import metrics

from cxr.serving.probabilities import NORMAL, pneumonia_probability


def scores(labels: ndarray, probabilities: ndarray, classes: tuple[str, ...]) -> dict[str, Any]:
    """Scores of `probabilities` (n, C) for `labels` (n,), as plain values.

    `loss` is the unweighted cross entropy in nats. Beside the classes, `pneumonia` asks only for pneumonia or
    normal, decided by the predicted class. A score that the labels do not allow (a class that is absent) is None.
    """
    predicted = probabilities.argmax(1)
    every = np.arange(len(classes))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    present = support > 0
    truth = probabilities[np.arange(len(labels)), labels]
    return {
        "images": len(labels),
        "loss": float(-np.log(np.clip(truth, 1e-12, 1)).mean()),
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": float(recall[present].mean()),
        "macro_f1": float(f1[present].mean()),
        "classes": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]) if present[i] else None,
                "f1": float(f1[i]) if present[i] else None,
                "support": int(support[i]),
                **_ranking(labels == i, probabilities[:, i]),
            }
            for i, name in enumerate(classes)
        },
        "pneumonia": _pneumonia(labels != NORMAL, predicted != NORMAL, pneumonia_probability(probabilities)),
    }


def confusion(labels: ndarray, probabilities: ndarray, classes: tuple[str, ...]) -> ndarray:
    """Counts of shape (C, C): rows are the truth, columns the predicted class."""
    return metrics.confusion_matrix(labels, probabilities.argmax(1), labels=np.arange(len(classes)))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested scores as metric names and numbers, what does not exist left out: `f1_virus`, `auc_pneumonia`."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if name == "classes":
            for label, own in value.items():
                found |= {f"{prefix}{key}_{label}": v for key, v in own.items() if v is not None}
        elif name == "pneumonia":
            found |= {
                f"{prefix}{key}_pneumonia" if key in ("auc", "average_precision") else f"{prefix}{key}": v
                for key, v in value.items()
                if v is not None
            }
        elif value is not None:
            found[prefix + name] = float(value)
    return found


def _ranking(truth: ndarray, score: ndarray) -> dict[str, float | None]:
    """Area under the ROC curve and average precision; neither exists where only one class is present."""
    if truth.all() or not truth.any():
        return {"auc": None, "average_precision": None}
    return {
        "auc": float(metrics.roc_auc_score(truth, score)),
        "average_precision": float(metrics.average_precision_score(truth, score)),
    }


def _pneumonia(truth: ndarray, predicted: ndarray, score: ndarray) -> dict[str, float | None]:
    def share(of: ndarray, among: ndarray) -> float | None:
        return float(of[among].mean()) if among.any() else None

    return {
        **_ranking(truth, score),
        "sensitivity": share(predicted, truth),
        "specificity": share(~predicted, ~truth),
        "ppv": share(truth, predicted),
        "npv": share(~truth, ~predicted),
    }
