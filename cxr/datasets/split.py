"""Training, validation and test parts: whole patients, class shares kept, the same for every run of a seed."""

import numpy as np
import pandas as pd

from cxr.errors import CxrError
from cxr.settings.schema import CLASS_NAMES


def assign(
    table: pd.DataFrame, *, classes: int, val_size: float, test_size: float, subset_size: int | None, seed: int
) -> pd.DataFrame:
    """Add a column `split` (`train`, `val`, `test`) to the survey's table; a subset keeps class shares.

    The official test part stays the test part. Where there is none, `test_size` of the images is cut out; then
    `val_size` of what is left. No patient is in two splits, but for one whom the official parts themselves share
    (DICOM files tell); `cxr.datasets.leakage` drops those images from training. A class that some split would lack
    raises `CxrError`.
    """
    names = CLASS_NAMES[classes]
    table = table.sort_values("path", ignore_index=True)
    if subset_size is not None:
        table = _subset(table, subset_size, seed)
    split = pd.Series("train", index=table.index)
    if (table["part"] == "test").any():
        split[table["part"] == "test"] = "test"
    else:
        split[_cut(table, test_size, names, seed, 1)] = "test"
    rest = table[split == "train"]
    split[rest.index[_cut(rest, val_size, names, seed, 2)]] = "val"
    table = table.assign(split=split)
    _check(table, names)
    return table


def _cut(table: pd.DataFrame, share: float, names: tuple[str, ...], seed: int, salt: int) -> np.ndarray:
    """A mask of whole patients that come to `share` of the images of every class, as nearly as patients allow.

    Greedy: patients in random order, those with most images first, each taken if that brings the counts nearer.
    """
    counts = pd.crosstab(table["patient"], table["label"]).reindex(columns=list(names), fill_value=0)
    wanted = counts.to_numpy().sum(0) * share
    rng = np.random.default_rng([seed, salt])
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts.to_numpy().sum(1)[order], kind="stable")]
    taken, chosen = np.zeros(len(names)), np.zeros(len(counts), dtype=bool)
    # Most patients have one image; leaving room for luck keeps patients with many from always landing in the cut.
    lucky = rng.random(len(counts)) < share
    for number in [*(i for i in order if lucky[i]), *(i for i in order[::-1] if not lucky[i])]:
        more = taken + counts.to_numpy()[number]
        if np.abs(wanted - more).sum() < np.abs(wanted - taken).sum() and (more <= wanted + 1).all():
            taken, chosen[number] = more, True
    return table["patient"].isin(counts.index[chosen]).to_numpy()


def _subset(table: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """About `size` images in all, with the shares that each class has in each official part."""
    if size >= len(table):
        return table
    part = table["part"].fillna("")
    sizes = table.groupby(["label", part]).size()
    exact = sizes * size / len(table)
    keep = np.floor(exact).astype(int).clip(lower=1)
    for group in (exact - np.floor(exact)).sort_values(ascending=False, kind="stable").index:
        if keep.sum() >= size:
            break
        keep[group] += 1
    rng = np.random.default_rng([seed, 0])
    shuffled = table.iloc[rng.permutation(len(table))]
    place = shuffled.groupby(["label", part[shuffled.index]]).cumcount()
    limit = pd.MultiIndex.from_arrays([shuffled["label"], part[shuffled.index]]).map(keep)
    return shuffled[place.to_numpy() < np.asarray(limit)].sort_values("path", ignore_index=True)


def _check(table: pd.DataFrame, names: tuple[str, ...]) -> None:
    counts = pd.crosstab(table["split"], table["label"]).reindex(
        index=["train", "val", "test"], columns=list(names), fill_value=0
    )
    for split, row in counts.iterrows():
        empty = [name for name in names if row[name] == 0]
        if empty:
            raise CxrError(
                f"the {split} part would have no images of {' and '.join(empty)} "
                f"({', '.join(f'{row[name]} {name}' for name in names)}); change data.val_size, data.test_size or "
                "data.subset_size, or add patients"
            )
    # Patients of an official test part that its training part has as well are for `cxr.datasets.leakage` to drop.
    ours = table[table["split"] != "test"] if (table["part"] == "test").any() else table
    shared = ours.groupby("patient")["split"].nunique()
    if (shared > 1).any():
        raise AssertionError(f"patients in two splits: {list(shared[shared > 1].index[:5])}")
