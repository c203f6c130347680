"""Duplicates and patients in two splits are found and dropped, from training first and never from the test split."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from cxr.datasets import inspection, leakage

RNG = np.random.default_rng(0)


def smooth_image(number: int) -> np.ndarray:
    smooth = gaussian_filter(np.random.default_rng(number).standard_normal((64, 64)), 5)
    return np.interp(smooth, (smooth.min(), smooth.max()), (20, 230)).astype(np.uint8)


def row(path, split, patient, grey) -> dict:
    return {
        "path": path,
        "split": split,
        "patient": patient,
        "pixel_hash": str(hash(grey.tobytes())),
        "phash": inspection.perceptual_hash(grey),
        "thumbnail": inspection.thumbnail(grey).tobytes(),
    }


def noisy(grey):
    return np.clip(grey + RNG.integers(-2, 3, grey.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def table() -> pd.DataFrame:
    a, b, c, d = (smooth_image(n) for n in range(4))
    rows = [
        row("a-train", "train", "p1", a),
        row("a-test", "test", "p2", a),
        row("b-val", "val", "p3", b),
        row("b-test", "test", "p4", noisy(b)),
        row("c-train", "train", "p5", c),
        row("c-val", "val", "p6", noisy(c)),
        row("d-train", "train", "p7", d),
        row("d-again", "train", "p7", d),
    ]
    return pd.DataFrame(rows + [row(f"{n}", "train", f"q{n}", smooth_image(10 + n)) for n in range(30)])


def test_duplicates_are_dropped_from_training_first_and_never_from_the_test_split(table):
    kept, report = leakage.resolve(table, bits=6)
    assert {image["path"]: image["why"] for image in report["dropped"]} == {
        "a-train": "exact duplicate",
        "b-val": "near duplicate",
        "c-train": "near duplicate",
    }
    assert len(kept) == len(table) - 3
    second = leakage.resolve(kept, bits=6)[1]
    assert second["exact"]["across_splits"] == second["near"]["across_splits"] == 0


def test_the_report_counts_duplicates_within_and_across_splits(table):
    report = leakage.resolve(table, bits=6)[1]
    assert report["exact"]["groups"] == 2
    assert report["exact"]["by_split"] == {"inside train": 1, "train-test": 1}
    assert report["exact"]["across_patients"] == 1
    assert report["near"]["by_split"] == {"train-val": 1, "val-test": 1}
    assert report["patients_in_two_splits"] == []


def test_a_patient_in_two_splits_is_reported(table):
    table.loc[table["path"] == "5", "patient"] = "p6"
    assert leakage.resolve(table, bits=6)[1]["patients_in_two_splits"] == ["p6"]


def test_patients_of_the_test_split_are_dropped_from_training(table):
    """Official splits can share patients, as patient IDs of DICOM files show."""
    table.loc[table["path"] == "5", "patient"] = "p2"
    kept, report = leakage.resolve(table, bits=6)
    assert "5" not in set(kept["path"]) and "a-test" in set(kept["path"])
    assert {"path": "5", "split": "train", "why": "patient of the test split"} in report["dropped"]
    assert report["patients_in_two_splits"] == []


def test_different_images_with_equal_hashes_are_kept():
    """Chest X-rays look alike, so that hashes can agree by chance."""
    a, b = smooth_image(1), smooth_image(2)
    rows = pd.DataFrame([row("a", "train", "p1", a), row("b", "test", "p2", b)])
    rows["phash"] = 12345
    kept, report = leakage.resolve(rows, bits=6)
    assert len(kept) == 2
    assert report["near"]["groups"] == 0


def test_of_equal_images_in_three_splits_those_of_the_test_split_stay(table):
    a = smooth_image(0)
    more = [row("a-val", "val", "p8", a), row("a-test-2", "test", "p9", a), row("a-train-2", "train", "p10", a)]
    kept, report = leakage.resolve(pd.concat([table, pd.DataFrame(more)], ignore_index=True), bits=6)
    assert {"a-test", "a-test-2"} <= set(kept["path"])
    dropped = [image["path"] for image in report["dropped"] if image["why"] == "exact duplicate"]
    assert dropped == ["a-train", "a-val", "a-train-2"]
    group = report["exact_groups"][[len(images) for images in report["exact_groups"]].index(5)]
    assert [image["path"] for image in group] == ["a-train", "a-test", "a-val", "a-test-2", "a-train-2"]


def test_time_grows_with_the_number_of_images_and_not_with_its_square():
    """A third are copies of one blank picture, another third are of patients of the test split."""
    count = 60_000
    number = np.arange(count)
    rows = pd.DataFrame(
        {
            "path": number.astype(str),
            "split": np.where(number % 2, "train", "test"),
            "patient": np.where(number % 3 == 1, number // 6, number).astype(str),
            "pixel_hash": np.where(number % 3 == 0, 0, number).astype(str),
            "phash": np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64),
            "thumbnail": [b"\0" * 1024] * count,
        }
    )
    started = time.process_time()
    kept, report = leakage.resolve(rows, bits=6)
    # Comparing each with each, of copies or patients, takes minutes.
    assert time.process_time() - started < 20
    assert report["exact"]["groups"] == 1 and len(kept) + len(report["dropped"]) == count
    assert {image["why"] for image in report["dropped"]} == {"exact duplicate", "patient of the test split"}
