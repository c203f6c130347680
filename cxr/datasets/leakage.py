"""Leakage between splits: exact duplicates, near duplicates and shared patients.

Exact duplicates have the same pixels. Near duplicates have perceptual hashes that differ in a few bits. Since chest
X-rays look alike, two hashes can agree by chance; a near pair counts only if the thumbnails of both images correlate as
well.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxr.datasets.near_hashes import near_pairs

LISTED = 200  # groups that the report lists at most; its counts cover all
# Smallest correlation of the thumbnails of near duplicates. In the 5,216 images of the original training split, the
# hashes of 1,570 pairs of different children differ in 6 bits or fewer; none of these pairs correlates above 0.97,
# while recompressed copies correlate above 0.99.
CORRELATION = 0.99
_CONFIRMED_AT_ONCE = 1 << 13  # pairs whose thumbnails are compared at once: about 80 MB
_RANK = {"train": 0, "val": 1, "test": 2}  # images of the lower rank are dropped


def find_duplicates(table: pd.DataFrame, bits: int) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Find groups of rows with the same pixels, and confirmed near pairs of rows with different pixels.

    Rows are given by their positions in the table.
    """
    return _equal(table["pixel_hash"]), _near(table, bits)


def _equal(values: pd.Series) -> list[list[int]]:
    """Positions of the rows that share a value, for every value that several have, in the order of the values."""
    rows = np.flatnonzero(values.duplicated(keep=False))
    shared = values.to_numpy()[rows]
    order = np.argsort(shared, kind="stable")
    starts = np.flatnonzero(shared[order][1:] != shared[order][:-1]) + 1
    return [group.tolist() for group in np.split(rows[order], starts) if len(group)]


def _near(table: pd.DataFrame, bits: int) -> list[tuple[int, int]]:
    """Pairs of rows with different pixels whose hashes are near and whose thumbnails correlate, sorted."""
    pixels, thumbnails = pd.factorize(table["pixel_hash"])[0], table["thumbnail"].tolist()
    found = []
    for first, second in near_pairs(table["phash"].to_numpy(), bits):
        different = pixels[first] != pixels[second]
        first, second = first[different], second[different]
        for start in range(0, len(first), _CONFIRMED_AT_ONCE):
            a, b = first[start : start + _CONFIRMED_AT_ONCE], second[start : start + _CONFIRMED_AT_ONCE]
            alike = _correlations(_stacked(thumbnails, a), _stacked(thumbnails, b)) >= CORRELATION
            found += list(zip(a[alike].tolist(), b[alike].tolist(), strict=True))
    return sorted(found)


def _stacked(thumbnails: list[bytes], rows: np.ndarray) -> np.ndarray:
    """Thumbnails of some rows as whole numbers, of shape (n, pixels). Their products add up to less than 2^31."""
    joined = b"".join(thumbnails[row] for row in rows)
    return np.frombuffer(joined, np.uint8).reshape(len(rows), -1).astype(np.int32)


def related(table: pd.DataFrame, bits: int) -> np.ndarray:
    """Number the groups of related images: those of one patient, duplicates, near duplicates, and what these share.

    Numbers follow the order of the rows, so that they do not depend on the names of patients.

    Args:
        table: images with `patient` and the fingerprints of `inspection.survey`.
        bits: number of bits in which perceptual hashes of near duplicates may differ.

    Returns:
        The group of each row, of shape (n,).
    """
    groups, near = find_duplicates(table, bits)
    pairs = [*near, *((group[0], row) for group in groups for row in group[1:])]
    patients = pd.factorize(table["patient"])[0]
    first_row = np.unique(patients, return_index=True)[1]  # of each patient
    alike = np.array(pairs, dtype=int).reshape(-1, 2)
    edges = np.concatenate([alike, np.stack([first_row[patients], np.arange(len(table))], 1)]).T
    graph = coo_array((np.ones(edges.shape[1]), tuple(edges)), shape=(len(table), len(table)))
    return pd.factorize(connected_components(graph, directed=False)[1])[0]


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of the grey levels of each pair of thumbnails, `int32` of shape (n, pixels) each; returns shape (n,).

    A thumbnail of one grey level correlates with an equal one alone.
    """
    spread_a, spread_b, together = _spread(a, a), _spread(b, b), _spread(a, b)
    spread = np.sqrt(spread_a.astype(np.float64) * spread_b)
    return np.where(spread > 0, together / np.where(spread > 0, spread, 1.0), (a == b).all(1))


def _spread(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Covariances of pairs times the square of the number of pixels: whole numbers, the same in any order of adding."""
    return x.shape[1] * np.einsum("ij,ij->i", x, y).astype(np.int64) - x.sum(1) * y.sum(1)


def resolve(table: pd.DataFrame, bits: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Drop images that leak between splits.

    Of two duplicates in different splits, the one in training is dropped, else the one in validation; test images are
    never dropped. Images of patients of the test split are dropped from the others.

    Args:
        table: images with `split`, `patient` and the fingerprints of `inspection.survey`.
        bits: number of bits in which perceptual hashes of near duplicates may differ.

    Returns:
        The remaining rows, and a report of all duplicates and of the dropped images.
    """
    groups, near = find_duplicates(table, bits)
    split, patient = table["split"].to_numpy(), table["patient"].to_numpy()
    rank = [_RANK[name] for name in split]
    dropped: dict[int, str] = {}  # row -> reason
    for kind, alike in (("exact", groups), ("near", near)):
        for rows in alike:
            highest = max(rank[row] for row in rows)
            for row in rows:
                if rank[row] < highest:
                    dropped.setdefault(row, f"{kind} duplicate")
    of_test = table["patient"].isin(patient[split == "test"]).to_numpy()
    for row in np.flatnonzero((split != "test") & of_test).tolist():
        dropped.setdefault(row, "patient of the test split")
    kept = table.drop(index=table.index[sorted(dropped)]).reset_index(drop=True)
    paths = table["path"].to_numpy()
    splits_per_patient = kept.groupby("patient")["split"].nunique()
    report = {
        "near_duplicate_bits": bits,
        "patients_in_two_splits": list(splits_per_patient.index[splits_per_patient > 1]),
        "exact": _counts(groups, split, patient),
        "near": _counts([list(pair) for pair in near], split, patient),
        "dropped": [{"path": paths[row], "split": split[row], "why": why} for row, why in sorted(dropped.items())],
        "exact_groups": [_listed(group, paths, split, patient) for group in groups[:LISTED]],
        "near_pairs": [_listed(list(pair), paths, split, patient) for pair in near[:LISTED]],
    }
    return kept, report


def _counts(groups: list[list[int]], split: np.ndarray, patient: np.ndarray) -> dict[str, Any]:
    by_split: dict[str, int] = defaultdict(int)
    for group in groups:
        splits = sorted({split[row] for row in group}, key=_RANK.__getitem__)
        by_split["-".join(splits) if len(splits) > 1 else f"inside {splits[0]}"] += 1
    return {
        "groups": len(groups),
        "by_split": dict(sorted(by_split.items())),
        "across_patients": sum(len({patient[row] for row in group}) > 1 for group in groups),
        "across_splits": sum(len({split[row] for row in group}) > 1 for group in groups),
    }


def _listed(rows: list[int], paths: np.ndarray, split: np.ndarray, patient: np.ndarray) -> list[dict[str, str]]:
    return [{"path": paths[row], "split": split[row], "patient": patient[row]} for row in rows]
