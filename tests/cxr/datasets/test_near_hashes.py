"""The pairs of hashes that differ in a few bits are those that comparing each with each finds."""

import time

import numpy as np
import pytest

from cxr.datasets import near_hashes


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Hashes as of images that look alike: a few patterns, each with up to twelve bits changed; and equal ones."""
    rng = np.random.default_rng(seed)
    hashes = rng.choice(rng.integers(0, 2**64, 1 + count // 20, dtype=np.uint64), count)
    for _ in range(12):
        hashes ^= np.where(rng.random(count) < 0.5, np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64), 0)
    hashes[count // 2] = hashes[0]
    return hashes


def compared_each_with_each(hashes: np.ndarray, bits: int) -> list[tuple[int, int]]:
    first, second = np.triu_indices(len(hashes), 1)
    near = np.bitwise_count(hashes[first] ^ hashes[second]) <= bits
    return list(zip(first[near].tolist(), second[near].tolist(), strict=True))


def found(hashes: np.ndarray, bits: int) -> list[tuple[int, int]]:
    """Pairs in order; one that is given twice is there twice."""
    parts = near_hashes.near_pairs(hashes, bits)
    return sorted(pair for first, second in parts for pair in zip(first.tolist(), second.tolist(), strict=True))


@pytest.mark.parametrize(
    ("bits", "shared"),
    [(0, 0), (0, 1), (1, 0), (1, 1), (1, 4), (3, 2), (6, 0), (6, 1), (6, 2), (6, 3), (16, 0), (16, 2)],
)
def test_every_pair_is_found_once_however_many_bands_are_shared(bits, shared, monkeypatch):
    monkeypatch.setattr(near_hashes, "_cost", lambda count, bits, m: abs(m - shared))
    hashes = clustered(400)
    expected = compared_each_with_each(hashes, bits)
    assert found(hashes, bits) == expected
    assert (0, 200) in expected


def test_pairs_come_in_parts_of_bounded_size(monkeypatch):
    monkeypatch.setattr(near_hashes, "_AT_ONCE", 50)
    hashes = clustered(300)
    sizes = [len(first) for first, _ in near_hashes.near_pairs(hashes, 10)]
    assert sum(sizes) == len(compared_each_with_each(hashes, 10)) and len(sizes) > 3
    assert max(sizes) < 50 + len(hashes)


@pytest.mark.parametrize("hashes", [[], [7], [7, 7]])
def test_few_hashes(hashes):
    assert found(np.array(hashes, dtype=np.uint64), 6) == ([(0, 1)] if len(hashes) == 2 else [])


def test_time_does_not_grow_with_the_square_of_the_number():
    rng = np.random.default_rng(0)

    def seconds(count: int) -> float:
        hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
        started = time.process_time()
        for _ in near_hashes.near_pairs(hashes, 6):
            pass
        return time.process_time() - started

    # Comparing each with each would take 64 times as long for the second as for the first.
    assert seconds(160_000) < 30 * max(seconds(20_000), 0.05)


def test_of_hashes_that_look_alike_more_bands_are_shared(monkeypatch):
    """Half of the bits are the same in all: bands of them say nothing."""
    rng = np.random.default_rng(0)
    alike = rng.integers(0, 2**32, 20_000, dtype=np.uint64)
    compared = []
    count = np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda differ: compared.append(len(differ)) or count(differ))
    pairs = found(alike, 3)
    assert sum(compared) < len(alike) ** 2 / 20
    assert pairs == sorted(pair for pair in pairs if (int(alike[pair[0]]) ^ int(alike[pair[1]])).bit_count() <= 3)
