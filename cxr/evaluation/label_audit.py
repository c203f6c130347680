"""Label audit: the images whose given label the model denies most confidently.

Confident learning: C. G. Northcutt, L. Jiang, I. L. Chuang, "Confident learning: estimating uncertainty in dataset
labels", Journal of Artificial Intelligence Research 70 (2021). It needs answers of a model that was not trained on the
images, such as out-of-fold answers: a network believes the labels that it was trained on.
"""

import numpy as np
import pandas as pd
from numpy import ndarray

from cxr.datasets.manifest import Manifest
from cxr.evaluation import scores
from cxr.evaluation.results import DoubtfulLabel, LabelAudit
from cxr.evaluation.scores import Sample


def doubtful(labels: ndarray, probabilities: ndarray) -> ndarray:
    """Indices of the images with a doubtful label, the most doubtful first.

    The self-confidence of an image is the probability of its given label. A label is doubtful if its self-confidence is
    below the mean of the images with that label, and another class is likeliest, with a probability of at least the
    mean self-confidence of the images with that other label. They are ranked by the probability of the given label
    minus that of the likeliest class.

    Args:
        labels: given class indices, of shape (n,).
        probabilities: of a model that was not trained on these images, of shape (n, C).

    Returns:
        Indices, of shape (m,).
    """
    given, likeliest = probabilities[np.arange(len(labels)), labels], probabilities.argmax(1)
    usual = mean_self_confidence(labels, probabilities)
    denied = (given < usual[labels]) & (likeliest != labels) & (probabilities.max(1) >= usual[likeliest])
    rows = np.flatnonzero(denied)
    return rows[np.argsort((given - probabilities.max(1))[rows], kind="stable")]


def mean_self_confidence(labels: ndarray, probabilities: ndarray) -> ndarray:
    """Mean probability of the given label over the images with that label, of shape (C,); infinity without images."""
    return np.array([p[labels == i].mean() if (labels == i).any() else np.inf for i, p in enumerate(probabilities.T)])


def audit(split: Manifest, sample: Sample, probabilities: ndarray, rows: ndarray, listed: int) -> LabelAudit:
    """The audit of a split, and its scores with and without the images of `rows`, as `doubtful` gives them.

    At most `listed` images are listed; `table` has all of them.
    """
    rest = np.setdiff1d(np.arange(len(split)), rows)
    usual, given = mean_self_confidence(sample.labels, probabilities), np.bincount(sample.labels[rows])
    found = table(split, probabilities, rows[:listed])
    return LabelAudit(
        images=len(split),
        doubtful={name: int(given[i]) if i < len(given) else 0 for i, name in enumerate(split.classes)},
        self_confidence={name: float(usual[i]) for i, name in enumerate(split.classes) if np.isfinite(usual[i])},
        listed=[
            DoubtfulLabel(path=row["path"], given=row["given"], prediction=row["prediction"], margin=row["margin"])
            for row in found.to_dict("records")
        ],
        with_all=scores.estimates(sample, probabilities),
        without=scores.estimates(sample.subset(rest), probabilities[rest]),
    )


def table(split: Manifest, probabilities: ndarray, rows: ndarray) -> pd.DataFrame:
    """The images of `rows` as a table: what was given, what was answered, and the rank, which begins with 1."""
    labels, answers = split.labels()[rows], probabilities[rows]
    given = answers[np.arange(len(rows)), labels]
    found = split.rows.iloc[rows][["path", "patient", "label"]].rename(columns={"label": "given"})
    found["prediction"] = [split.classes[i] for i in answers.argmax(1)]
    found[[f"probability_{name}" for name in split.classes]] = answers
    found["self_confidence"] = given
    found["margin"] = given - answers.max(1)
    found["rank"] = np.arange(1, len(rows) + 1)
    return found.reset_index(drop=True)
