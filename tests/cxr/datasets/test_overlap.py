"""Images that stand in two datasets are found by their fingerprints; equal names of patients alone prove nothing."""

import hashlib
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from cxr.datasets import inspection, leakage, near_hashes, overlap
from cxr.errors import CxrError


def picture(number: int) -> np.ndarray:
    smooth = gaussian_filter(np.random.default_rng(number).standard_normal((64, 64)), 5)
    return np.interp(smooth, (smooth.min(), smooth.max()), (20, 230)).astype(np.uint8)


def noisy(grey: np.ndarray) -> np.ndarray:
    return np.clip(grey + np.random.default_rng(0).integers(-2, 3, grey.shape), 0, 255).astype(np.uint8)


def survey(pictures: dict[str, np.ndarray], patients: dict[str, str] | None = None, split: str = "val") -> pd.DataFrame:
    """What `inspection.survey` says of these pictures, each of a patient of its own unless `patients` names it."""
    return pd.DataFrame([
        {
            "path": path,
            "patient": (patients or {}).get(path, f"all/{path}"),
            "split": split,
            "sha256": hashlib.sha256(path.encode() + grey.tobytes()).hexdigest(),
            "pixel_hash": hashlib.sha256(grey.tobytes()).hexdigest(),
            "phash": inspection.perceptual_hash(grey),
            "thumbnail": inspection.thumbnail(grey).tobytes(),
        }
        for path, grey in pictures.items()
    ])  # fmt: skip


def prints(*args, **kwargs) -> pd.DataFrame:
    return overlap.fingerprints(survey(*args, **kwargs))


def found(images: pd.DataFrame, others: pd.DataFrame, **kwargs) -> list[tuple[str, str, str]]:
    """(path, path of the match, reason) of each image that was found."""
    result = overlap.find(images, others, 6, **kwargs)
    paths = images["path"].to_numpy()[result["row"]], others["path"].to_numpy()[result["other"]]
    return list(zip(*paths, result["reason"], strict=True))


OTHERS = {"x": picture(0), "y": picture(1), "z": picture(2)}


def test_copies_are_found_by_file_by_pixels_and_by_likeness():
    images = prints({"new": picture(3), "near": noisy(picture(1)), "copy": picture(2), "file": picture(4)})
    others = prints(OTHERS)
    others.loc[0, "sha256"] = images["sha256"][3]
    assert found(images, others) == [
        ("near", "y", "near duplicate"),
        ("copy", "z", "same pixels"),
        ("file", "x", "same pixels"),
    ]


def test_images_whose_perceptual_hashes_agree_by_chance_are_not_found():
    images, others = prints({"new": picture(3)}), prints(OTHERS)
    images["phash"] = others["phash"] = np.uint64(12345)
    assert found(images, others) == []


def test_equal_names_of_patients_in_two_hospitals_mean_nothing():
    """Both number their children from 1."""
    images = prints({"a": picture(3), "b": picture(4)}, {"a": "all/1", "b": "all/2"})
    others = prints(OTHERS, {"x": "all/1", "y": "all/2"})
    assert found(images, others) == []
    assert found(images, others, same_names=True) == [("a", "x", "same patient"), ("b", "y", "same patient")]


def test_shared_images_of_the_same_patients_show_that_names_are_alike():
    images = prints({"a": picture(3), "b": picture(0), "c": picture(1)}, {"a": "all/1", "b": "all/1", "c": "all/2"})
    others = prints(OTHERS, {"x": "all/1", "y": "all/2", "z": "all/3"})
    assert found(images, others)[0] == ("a", "x", "same patient")
    assert ("a", "x", "same patient") not in found(images, others, same_names=False)


def test_shared_images_of_other_patients_show_that_names_are_not_alike():
    """A copy of a dataset whose patients were numbered anew, one of them by chance as before."""
    patients = {"a": "all/2", "b": "all/1", "c": "all/3", "d": "all/4"}
    images = prints({"a": picture(3), "b": picture(0), "c": picture(1), "d": picture(2)}, patients)
    others = prints(OTHERS, {"x": "all/1", "y": "all/2", "z": "all/3"})
    assert [(path, reason) for path, _, reason in found(images, others)] == [(path, "same pixels") for path in "bcd"]


def test_the_same_is_found_as_within_one_dataset(monkeypatch):
    """And whatever is compared at once."""
    ours = {f"a{n}": noisy(picture(n)) if n % 2 else picture(n) for n in range(30)}
    theirs = {f"b{n}": picture(n) for n in range(10, 40)}
    both = pd.concat([survey(ours), survey(theirs)], ignore_index=True)
    groups, near = leakage.find_duplicates(both, 6)
    expected = sorted((a, b - 30) for a, b in [*groups, *near])
    images, others = prints(ours), prints(theirs)
    result = overlap.find(images, others, 6)
    assert len(result) == 20 and list(zip(result["row"], result["other"], strict=True)) == expected
    monkeypatch.setattr(near_hashes, "_AT_ONCE", 1)
    pd.testing.assert_frame_equal(overlap.find(images, others, 6), result)


@pytest.mark.parametrize("at_once", [1, 2, 1 << 17])
def test_the_first_of_several_matches_is_given(monkeypatch, at_once):
    monkeypatch.setattr(near_hashes, "_AT_ONCE", at_once)
    others = prints({"x": picture(0), "y": picture(1), "again": picture(1), "once more": picture(1)})
    assert found(prints({"near": noisy(picture(1)), "copy": picture(1)}), others) == [
        ("near", "y", "near duplicate"),
        ("copy", "y", "same pixels"),
    ]


@pytest.mark.parametrize("ours, theirs", [({}, OTHERS), (OTHERS, {})])
def test_nothing_stands_in_an_empty_table(ours, theirs):
    tables = [prints(OTHERS).iloc[: len(pictures)] for pictures in (ours, theirs)]
    assert len(overlap.find(*tables, 6, same_names=True)) == 0


def test_many_images_are_compared_in_flat_memory():
    rng = np.random.default_rng(0)

    def table(size: int, name: str) -> pd.DataFrame:
        words = [f"{name}{n}" for n in range(size)]
        hashes = rng.integers(0, 2**64, size, dtype=np.uint64)
        hashes[:20] = 7  # as perceptual hashes of one part are all alike
        thumbnails = [rng.bytes(128) for _ in range(size)]
        columns = dict.fromkeys(("path", "patient", "sha256", "pixel_hash"), words)
        return pd.DataFrame(columns | {"phash": hashes, "thumbnail_hash": thumbnails})

    images, others = table(20_000, "a"), table(5_000, "b")
    tracemalloc.start()
    assert len(overlap.find(images, others, 6)) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6  # all pairs of hashes alone are 800 MB


def test_fingerprints_are_kept_without_pictures(tmp_path):
    table = prints({"a": picture(0), "b": picture(1)})
    table["phash"] = np.array([2**64 - 1, 1], dtype=np.uint64)
    overlap.save(table, tmp_path)
    pd.testing.assert_frame_equal(overlap.load(tmp_path), table)
    assert list(table) == ["path", "patient", "split", "sha256", "pixel_hash", "phash", "thumbnail_hash"]
    with pytest.raises(CxrError, match=r"\(there are none\); run prepare_split again"):
        overlap.load(tmp_path / "none")
    table[["path"]].to_parquet(tmp_path / overlap.FILE)
    with pytest.raises(CxrError, match="expected the columns path, patient, split"):
        overlap.load(tmp_path)
    (tmp_path / overlap.FILE).write_bytes(b"PAR1")
    with pytest.raises(CxrError, match="cannot be read .*run prepare_split again"):
        overlap.load(tmp_path)


def test_the_hash_of_a_thumbnail_is_the_same_on_every_machine():
    """Splits of today are compared with those of years ago."""
    ramp = np.arange(1024).astype(np.uint8).reshape(32, 32)
    [digest] = overlap._thumbnail_hashes(pd.Series([ramp.tobytes()]))
    assert len(digest) == 128
    assert hashlib.sha256(digest).hexdigest()[:16] == "570c0205d125ed5a"
