"""Every image is decoded once; what cannot be read is listed, and too much of it stops the step."""

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from cxr.datasets import inspection
from cxr.datasets.layouts import Found
from cxr.errors import CxrError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (40, 50 + number), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def listed(folder):
    return [Found(f.name, "normal", f.stem, "train") for f in sorted(folder.iterdir())]


def test_sizes_and_fingerprints(folder):
    table, unreadable = inspection.survey(folder, listed(folder), workers=1)
    assert unreadable == []
    assert list(table["width"]) == [50 + n for n in range(10)]
    assert set(table["height"]) == {40}
    assert set(table["mode"]) == {"L"}
    assert table["pixel_hash"].nunique() == table["sha256"].nunique() == 10
    assert list(table["patient"][:2]) == ["train/0", "train/1"]


def test_the_same_pixels_in_another_file_have_the_same_hash(folder):
    Image.open(folder / "0.png").save(folder / "0copy.tif")
    table, _ = inspection.survey(folder, listed(folder), workers=1)
    same = table[table["path"].isin(["0.png", "0copy.tif"])]
    assert same["pixel_hash"].nunique() == 1
    assert same["sha256"].nunique() == 2


def test_processes_find_what_one_finds(folder, monkeypatch):
    many = listed(folder) * 25  # enough for the pool
    alone, _ = inspection.survey(folder, many, workers=1)
    pooled, _ = inspection.survey(folder, many, workers=2)
    assert alone.equals(pooled)


def test_unreadable_files_are_listed_or_stop_the_step(folder):
    (folder / "text.jpeg").write_text("no picture")
    (folder / "empty.jpeg").write_bytes(b"")
    table, unreadable = inspection.survey(folder, listed(folder), workers=1, max_unreadable=0.2)
    assert len(table) == 10
    assert [path for path, _ in unreadable] == ["empty.jpeg", "text.jpeg"]
    with pytest.raises(CxrError, match=r"2 of 12 images cannot be read, allowed is a share of 0\.1 .*empty\.jpeg"):
        inspection.survey(folder, listed(folder), workers=1, max_unreadable=0.1)


def test_a_perceptual_hash_stays_where_the_picture_stays():
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal((200, 220)), 8)
    grey = np.interp(smooth, (smooth.min(), smooth.max()), (30, 220)).astype(np.uint8)
    smaller = np.asarray(Image.fromarray(grey).resize((150, 130)))
    brighter = (grey + 20).astype(np.uint8)
    turned = np.rot90(grey).copy()
    own = inspection.perceptual_hash(grey)
    assert (own ^ inspection.perceptual_hash(smaller)).bit_count() <= 3
    assert (own ^ inspection.perceptual_hash(brighter)).bit_count() <= 3
    assert (own ^ inspection.perceptual_hash(turned)).bit_count() > 12
