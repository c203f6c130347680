"""Pairs of 64-bit hashes that differ in a few bits, without comparing each with each.

Hashes are cut into bands. Two that differ in at most `bits` of the 64 bits differ in at most as many bands, so that of
`bits + m` bands they have m in common. For every choice of m bands, hashes are sorted by these, and only those that
agree there are compared. This is the method of G. S. Manku, A. Jain and A. Das Sarma, "Detecting near-duplicates for
web crawling" (WWW 2007). It finds every pair.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from numpy import ndarray

_HASH_BITS = 64
_MOST_SHARED = 4  # bands on which hashes are sorted; more pay from tens of millions of hashes on
_SORTING = 30  # comparisons that take as long as sorting one hash does
_SAMPLE = 4096  # hashes from which is estimated how many agree,
_TRIED = 32  # and choices of bands
_AT_ONCE = 1 << 17  # pairs that are given out at once: 2 MB


def near_pairs(hashes: ndarray, bits: int) -> Iterator[tuple[ndarray, ndarray]]:
    """Find all pairs of hashes that differ in at most `bits` bits.

    Args:
        hashes: `uint64`, of shape (n,).
        bits: 0 to 63.

    Yields:
        Positions of the first and the second hash of some pairs, two arrays of shape (k,), first < second. Each pair is
        given once, in no particular order. Memory grows with n, not with the number of pairs.
    """
    hashes = hashes.astype(np.uint64)
    shared = min(range(_MOST_SHARED + 1), key=lambda m: _cost(hashes, bits, m))
    bands = _bands(bits + shared)
    parts: list[tuple[ndarray, ndarray]] = []
    for chosen in combinations(range(len(bands)), shared):
        for first, second in _agreeing(hashes, bits, bands, chosen):
            parts.append((first, second))
            if sum(len(part) for part, _ in parts) >= _AT_ONCE:
                yield _joined(parts)
                parts = []
    if parts:
        yield _joined(parts)


def _cost(hashes: ndarray, bits: int, shared: int) -> float:
    """Comparisons of hashes that must share that many bands, and what sorting by these costs, as a sample shows it.

    Hashes of X-rays look alike: far more of them agree in some bands than if they were spread evenly.
    """
    count, bands = len(hashes), bits + shared
    if bands > _HASH_BITS:
        return float("inf")
    pairs = count * count / 2
    if not shared:
        return pairs
    choices = list(combinations(_bands(bands), shared))
    sample = hashes[:: max(1, -(-count // _SAMPLE))]
    agreeing = [_agreeing_share(_keys(sample, list(chosen))) for chosen in choices[:: -(-len(choices) // _TRIED)]]
    return len(choices) * (sum(agreeing) / len(agreeing) * pairs + _SORTING * count)


def _agreeing_share(keys: ndarray) -> float:
    """Share of all pairs whose keys are equal."""
    sizes = np.unique(keys, return_counts=True)[1]
    return float((sizes * (sizes - 1)).sum()) / max(1, len(keys) * (len(keys) - 1))


def _bands(number: int) -> list[tuple[int, int]]:
    """First bit and number of bits of each band."""
    edges = [_HASH_BITS * band // number for band in range(number + 1)] if number else []
    return [(start, end - start) for start, end in pairwise(edges)]


def _agreeing(
    hashes: ndarray, bits: int, bands: list[tuple[int, int]], chosen: tuple[int, ...]
) -> Iterator[tuple[ndarray, ndarray]]:
    """Pairs whose first bands in common are the chosen ones, so that no other choice gives them again."""
    keys = _keys(hashes, [bands[band] for band in chosen])
    order = np.argsort(keys, kind="stable")
    keys, hashes = keys[order], hashes[order]
    starts = np.append(np.flatnonzero(np.append(True, keys[1:] != keys[:-1])), len(keys))
    ends = np.repeat(starts[1:], np.diff(starts))
    masks = np.array([((1 << width) - 1) << start for start, width in bands], dtype=np.uint64)
    at = np.arange(len(hashes))
    distance = 0
    while True:  # each hash with the next one of its key, then with the one after that, ...
        distance += 1
        at = at[at + distance < ends[at]]
        if not len(at):
            return
        differ = hashes[at] ^ hashes[at + distance]
        near = np.flatnonzero(np.bitwise_count(differ) <= bits)
        common = (differ[near, None] & masks) == 0
        first = common & (common.cumsum(1) <= len(chosen))
        near = near[first[:, chosen].all(1)]
        if len(near):
            a, b = order[at[near]], order[at[near] + distance]
            yield np.minimum(a, b), np.maximum(a, b)


def _keys(hashes: ndarray, bands: list[tuple[int, int]]) -> ndarray:
    """The bits of some bands side by side, in as small a type as holds them: 16 bits are sorted fastest."""
    keys = np.zeros(len(hashes), np.uint64)
    for start, width in bands:
        keys = (keys << np.uint64(width)) | ((hashes >> np.uint64(start)) & np.uint64((1 << width) - 1))
    width = sum(width for _, width in bands)
    return keys.astype(np.uint16 if width <= 16 else np.uint32 if width <= 32 else np.uint64)


def _joined(parts: list[tuple[ndarray, ndarray]]) -> tuple[ndarray, ndarray]:
    first, second = zip(*parts, strict=True)
    return np.concatenate(first), np.concatenate(second)
