"""Every image is decoded and fingerprinted; unreadable ones are listed, and too many of them are an error."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxr.datasets import inspection
from cxr.datasets.layouts import ListedImage
from cxr.errors import CxrError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (40, 50 + number), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def listing(folder):
    return [ListedImage(f.name, "normal", f.stem, "train") for f in sorted(folder.iterdir())]


def test_a_survey_has_sizes_and_fingerprints(folder):
    table, unreadable = inspection.survey(folder, listing(folder), workers=1)
    assert unreadable == []
    assert list(table["width"]) == [50 + n for n in range(10)]
    assert set(table["height"]) == {40}
    assert set(table["mode"]) == {"L"}
    assert table["pixel_hash"].nunique() == table["sha256"].nunique() == 10
    assert list(table["patient"][:2]) == ["train/0", "train/1"]


def test_equal_pixels_in_another_format_have_the_same_pixel_hash(folder):
    Image.open(folder / "0.png").save(folder / "0copy.tif")
    table, _ = inspection.survey(folder, listing(folder), workers=1)
    copies = table[table["path"].isin(["0.png", "0copy.tif"])]
    assert copies["pixel_hash"].nunique() == 1
    assert copies["sha256"].nunique() == 2


@pytest.mark.slow
def test_parallel_processes_give_the_same_table_as_one(folder):
    many = listing(folder) * 25  # enough for the pool
    single, _ = inspection.survey(folder, many, workers=1)
    parallel, _ = inspection.survey(folder, many, workers=2)
    assert single.equals(parallel)


def test_unreadable_files_are_listed_and_too_many_are_refused(folder):
    (folder / "text.jpeg").write_text("not an image")
    (folder / "empty.jpeg").write_bytes(b"")
    table, unreadable = inspection.survey(folder, listing(folder), workers=1, max_unreadable=0.2)
    assert len(table) == 10
    assert [path for path, _ in unreadable] == ["empty.jpeg", "text.jpeg"]
    with pytest.raises(
        CxrError, match=r"2 of 12 images cannot be read, more than data\.max_unreadable=0\.1 .*empty\.jpeg"
    ):
        inspection.survey(folder, listing(folder), workers=1, max_unreadable=0.1)


def test_a_perceptual_hash_changes_little_with_size_and_brightness():
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal((200, 220)), 8)
    grey = np.interp(smooth, (smooth.min(), smooth.max()), (30, 220)).astype(np.uint8)
    smaller = np.asarray(Image.fromarray(grey).resize((150, 130)))
    brighter = (grey + 20).astype(np.uint8)
    turned = np.rot90(grey).copy()
    original = inspection.perceptual_hash(grey)
    assert (original ^ inspection.perceptual_hash(smaller)).bit_count() <= 3
    assert (original ^ inspection.perceptual_hash(brighter)).bit_count() <= 3
    assert (original ^ inspection.perceptual_hash(turned)).bit_count() > 12
