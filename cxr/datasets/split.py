"""Training, validation and test splits by patient, with the same share of each class, reproducible from a seed.

With folds, the validation split is one fold of a cross-validation (see `cxr.datasets.folds`).
"""

import numpy as np
import pandas as pd

from cxr.datasets import folds as cross_validation
from cxr.datasets import leakage
from cxr.datasets.patients import PSEUDONYMS, STUDIES
from cxr.errors import CxrError

_AT_ONCE = 4096  # patients that are judged at once


def assign(
    table: pd.DataFrame,
    *,
    names: tuple[str, ...],
    val_size: float,
    test_size: float,
    subset_size: int | None,
    seed: int,
    folds: int | None = None,
    fold: int = 0,
    near_duplicate_bits: int = 0,
) -> pd.DataFrame:
    """Assign images to splits, with all images of a patient in the same split.

    The official test split is kept. Only if the source has none, `test_size` of the images become the test split.
    `val_size` of the remaining images become the validation split, or with `folds` the fold `fold` of them; duplicates
    and near duplicates then share a fold. Patients that are in both official splits, as DICOM
    files and studies can show, stay in both; `cxr.datasets.leakage` drops their other images.

    Args:
        table: images with `path`, `label`, `patient` and `official_split`, as from `inspection.survey`; with `folds`,
            their fingerprints as well.
        names: classes.
        val_size: share of the validation split; 0 for none.
        test_size: share of the test split.
        subset_size: number of images to keep, with the same class shares; None for all.
        seed: seed of the random choice.
        folds: number of folds; None for none.
        fold: the fold that becomes the validation split, 0 to `folds - 1`.
        near_duplicate_bits: number of bits in which perceptual hashes of near duplicates may differ.

    Returns:
        The table sorted by path, with the additional column `split` ("train", "val" or "test").

    Raises:
        CxrError: a split would have no images of some class.
    """
    table = table.sort_values("path", ignore_index=True)
    if subset_size is not None:
        table = _subset(table, subset_size, seed)
    split = pd.Series("train", index=table.index)
    if (table["official_split"] == "test").any():
        split[table["official_split"] == "test"] = "test"
    else:
        split[_choose_patients(table, test_size, names, [seed, 1])] = "test"
    rest = table[split == "train"]
    if folds is None:
        val = _choose_patients(rest, val_size, names, [seed, 2])
    else:
        groups = leakage.related(rest, near_duplicate_bits)
        val = cross_validation.assign(rest["label"].to_numpy(), groups, names, folds, seed) == fold
    split[rest.index[val]] = "val"
    table = table.assign(split=split)
    _check_splits(table, names, empty_val=val_size == 0 and folds is None)
    return table


def _choose_patients(table: pd.DataFrame, share: float, names: tuple[str, ...], seed: list[int]) -> np.ndarray:
    """Mask of the images of patients that together have about `share` of the images of every class.

    Greedy: each patient in turn is chosen if that brings the number of images per class closer to the target.
    """
    patients = _in_order(table)
    counts = pd.crosstab(patients, table["label"]).reindex(columns=list(names), fill_value=0)
    images = counts.to_numpy()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-images.sum(1)[order], kind="stable")]  # most images first
    # A random `share` of the patients comes first. In order of their images alone, patients with many images would
    # always be chosen, since most patients have a single image.
    preferred = rng.random(len(counts)) < share
    order = np.concatenate([order[preferred[order]], order[::-1][~preferred[order[::-1]]]])
    chosen = order[_taken(images[order], images.sum(0) * share)]
    return patients.isin(counts.index[chosen]).to_numpy()


def _taken(images: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Which patients are chosen, one after the other: mask of shape (n,).

    As long as all patients are chosen, or none, many of them are judged at once.

    Args:
        images: number of images of each patient and class, of shape (n, C).
        target: number of images of each class, of shape (C,).
    """
    taken = np.zeros(len(images), dtype=bool)
    total = np.zeros(images.shape[1])
    start, at_once, taking = 0, 1, True
    while start < len(images):
        ahead = images[start : start + at_once]
        after = total + (ahead.cumsum(0) if taking else ahead)
        before = after - ahead
        closer = np.abs(target - after).sum(1) < np.abs(target - before).sum(1)
        takes = closer & (after <= target + 1).all(1)
        as_expected = len(ahead) if (takes == taking).all() else int((takes != taking).argmax())
        if taking and as_expected:
            taken[start : start + as_expected] = True
            total = after[as_expected - 1]
        start += as_expected
        if as_expected < len(ahead):
            taking, at_once = not taking, 1
        else:
            at_once = min(2 * at_once, _AT_ONCE)
    return taken


def _in_order(table: pd.DataFrame) -> pd.Series:
    """Patients under names whose order decides the choice; a pseudonym, which the user's key decides, is replaced.

    The first image of a patient stands for it, so that two users split the same DICOM files in the same way. The table
    is sorted by path.
    """
    first = table["patient"].map(table.drop_duplicates("patient").set_index("patient")["path"])
    return table["patient"].mask(table["patient"].str.startswith((PSEUDONYMS, STUDIES)), PSEUDONYMS + first)


def _subset(table: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """Choose about `size` images, with the same share of each class in each official split."""
    if size >= len(table):
        return table
    official = table["official_split"].fillna("")
    sizes = table.groupby(["label", official]).size()
    exact = sizes * size / len(table)
    quota = np.floor(exact).astype(int).clip(lower=1)
    for group in (exact - np.floor(exact)).sort_values(ascending=False, kind="stable").index:
        if quota.sum() >= size:
            break
        quota[group] += 1
    rng = np.random.default_rng([seed, 0])
    shuffled = table.iloc[rng.permutation(len(table))]
    rank = shuffled.groupby(["label", official[shuffled.index]]).cumcount()
    quotas = pd.MultiIndex.from_arrays([shuffled["label"], official[shuffled.index]]).map(quota)
    return shuffled[rank.to_numpy() < np.asarray(quotas)].sort_values("path", ignore_index=True)


def _check_splits(table: pd.DataFrame, names: tuple[str, ...], *, empty_val: bool = False) -> None:
    counts = pd.crosstab(table["split"], table["label"]).reindex(
        index=["train", "val", "test"], columns=list(names), fill_value=0
    )
    for split, row in counts.iterrows():
        empty = [name for name in names if row[name] == 0]
        if empty and not (empty_val and split == "val"):
            raise CxrError(
                f"the {split} split would have no images of {' and '.join(empty)} "
                f"({', '.join(f'{row[name]} {name}' for name in names)}); change data.val_size, data.test_size or "
                "data.subset_size, or add patients"
            )
    # Patients in both official splits are left to `cxr.datasets.leakage`.
    assigned = table[table["split"] != "test"] if (table["official_split"] == "test").any() else table
    splits = assigned.groupby("patient")["split"].nunique()
    if (splits > 1).any():
        raise AssertionError(f"patients in two splits: {list(splits[splits > 1].index[:5])}")
