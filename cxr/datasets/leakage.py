"""Does anything of one split stand in another? Exact and near duplicates, and patients.

Exact duplicates have the same pixels. Near duplicates have perceptual hashes that differ in a few bits; chest X-rays
look alike, so that two hashes can agree by chance: a near pair counts only where small versions of both pictures
correlate as well.
"""

from collections import defaultdict
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

LISTED = 200  # groups that the report lists at most; counts are of all
# Of 32 x 32 pixel versions. On the 5,216 images of the original training part, hashes of 1,570 pairs of different
# children differ in 6 bits or fewer, and no such pair correlates above 0.97; a recompressed copy does above 0.99.
CORRELATION = 0.99
_RANK = {"train": 0, "val": 1, "test": 2}


def near_pairs(hashes: np.ndarray, bits: int) -> list[tuple[int, int]]:
    """Index pairs of 64-bit hashes that differ in at most `bits` bits; memory grows with the pairs found only."""
    hashes = hashes.astype(np.uint64)
    pairs = []
    for row in range(len(hashes) - 1):
        near = np.flatnonzero(np.bitwise_count(hashes[row + 1 :] ^ hashes[row]) <= bits)
        pairs += [(row, row + 1 + int(other)) for other in near]
    return pairs


def find(table: pd.DataFrame, bits: int) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Groups of rows with the same pixels, and confirmed near pairs of rows with other pixels (by position)."""
    groups = [[int(r) for r in rows] for rows in table.groupby("pixel_hash").indices.values() if len(rows) > 1]
    pixels, small = table["pixel_hash"].to_numpy(), table["thumbnail"].to_numpy()
    pairs = near_pairs(table["phash"].to_numpy(), bits)
    near = [(a, b) for a, b in pairs if pixels[a] != pixels[b] and _correlation(small[a], small[b]) >= CORRELATION]
    return groups, near


def _correlation(a: bytes, b: bytes) -> float:
    x, y = (np.frombuffer(t, np.uint8).astype(np.float64) for t in (a, b))
    x, y = x - x.mean(), y - y.mean()
    spread = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / spread) if spread else float(spread == 0 and (x == y).all())


def resolve(table: pd.DataFrame, bits: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Drop what crosses splits, from training first and from the test part never; returns the table and the report."""
    groups, near = find(table, bits)
    split, patient = table["split"].to_numpy(), table["patient"].to_numpy()
    dropped: dict[int, str] = {}  # row -> why
    for kind, pairs in (("exact", [pair for group in groups for pair in combinations(group, 2)]), ("near", near)):
        for a, b in pairs:
            if split[a] != split[b]:
                dropped.setdefault(min(a, b, key=lambda row: _RANK[split[row]]), f"{kind} duplicate")
    for row in np.flatnonzero((split != "test") & np.isin(patient, patient[split == "test"])):
        dropped.setdefault(int(row), "patient of the test part")
    kept = table.drop(index=table.index[sorted(dropped)]).reset_index(drop=True)
    paths = table["path"].to_numpy()
    crossing_patients = [p for p, n in kept.groupby("patient")["split"].nunique().items() if n > 1]
    report = {
        "near_duplicate_bits": bits,
        "patients_in_two_splits": crossing_patients,
        "exact": _counts([list(g) for g in groups], split, patient),
        "near": _counts([list(pair) for pair in near], split, patient),
        "dropped": [{"path": paths[r], "split": split[r], "why": w} for r, w in sorted(dropped.items())],
        "exact_groups": [_listed(g, paths, split, patient) for g in groups[:LISTED]],
        "near_pairs": [_listed(list(pair), paths, split, patient) for pair in near[:LISTED]],
    }
    return kept, report


def _counts(groups: list[list[int]], split: np.ndarray, patient: np.ndarray) -> dict[str, Any]:
    between = defaultdict(int)
    for group in groups:
        splits = sorted({split[row] for row in group}, key=_RANK.__getitem__)
        between["-".join(splits) if len(splits) > 1 else f"inside {splits[0]}"] += 1
    return {
        "groups": len(groups),
        "by_split": dict(sorted(between.items())),
        "across_patients": sum(len({patient[row] for row in group}) > 1 for group in groups),
        "across_splits": sum(len({split[row] for row in group}) > 1 for group in groups),
    }


def _listed(rows: list[int], paths: np.ndarray, split: np.ndarray, patient: np.ndarray) -> list[dict[str, str]]:
    return [{"path": paths[row], "split": split[row], "patient": patient[row]} for row in rows]
