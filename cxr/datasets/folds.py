"""Folds of a cross-validation: related images in one fold, every fold with the same share of each class."""

import warnings

import numpy as np
from numpy import ndarray
from sklearn.model_selection import StratifiedGroupKFold

from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError


def assign(labels: ndarray, groups: ndarray, names: tuple[str, ...], folds: int, seed: int) -> ndarray:
    """Assign images to folds, with all images of a group in the same fold.

    Args:
        labels: class names, of shape (n,).
        groups: numbers of the groups of related images, as from `leakage.related`, of shape (n,).
        names: classes.
        folds: number of folds.
        seed: seed of the random choice.

    Returns:
        The fold of each image, 0 to `folds - 1`, of shape (n,).

    Raises:
        CxrError: a fold would have no images of some class.
    """
    patients = {name: len(np.unique(groups[labels == name])) for name in names}
    fewest = min(patients, key=patients.__getitem__)
    if patients[fewest] < folds:
        most = patients[fewest]
        allowed = f"give at most {most} folds, or add patients" if most > 1 else "folds need 2 or more; add patients"
        raise CxrError(
            f"data.folds={folds}: expected at least {folds} patients of every class outside the test split, got {most} "
            f"of {fewest} (patients who share duplicates count once); {allowed}"
        )
    fold = np.empty(len(labels), dtype=int)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer images than folds; checked above and below
        for number, (_, rows) in enumerate(splitter.split(labels, labels, groups)):
            fold[rows] = number
    for number in range(folds):
        empty = [name for name in names if not ((fold == number) & (labels == name)).any()]
        if empty:
            raise CxrError(
                f"data.folds={folds}: fold {number} would have no images of {' and '.join(empty)}; give fewer folds, "
                "or add patients"
            )
    return fold


def complete(manifests: list[Manifest]) -> bool:
    """Whether these are all folds of one cross-validation, in any order.

    They then hold the same images with the same test split, and each other image is a validation image exactly once.
    """
    pools = {manifest.cross_validated().digest for manifest in manifests}
    validated = np.concatenate([manifest.split("val").rows["path"].to_numpy() for manifest in manifests])
    outside = (manifests[0].rows["split"] != "test").sum()
    return len(pools) == 1 and len(validated) == len(np.unique(validated)) == outside
