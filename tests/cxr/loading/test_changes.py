"""Changed images stay images; a sample of them has whole patients."""

import numpy as np
import pytest

from cxr.loading import changes
from cxr.loading.rasters import ImageDataset
from tests.helpers import network, small_set

GREY = np.random.default_rng(0).integers(1, 256, (64, 64), dtype=np.uint8)


@pytest.mark.parametrize("name", changes.CHANGES)
def test_a_changed_image_is_an_image(name):
    changed = changes.CHANGES[name](GREY)
    assert changed.shape == GREY.shape and changed.dtype == np.uint8
    assert (name == "unchanged") == np.array_equal(changed, GREY)


def test_masks_are_where_they_say():
    border, corners = (
        changes.CHANGES["border masked (10 %)"](GREY),
        changes.CHANGES["corners masked (20 %)"](GREY),
    )
    assert not border[:6].any() and not border[:, -6:].any() and np.array_equal(border[6:-6, 6:-6], GREY[6:-6, 6:-6])
    assert not corners[:13, :13].any() and not corners[-13:, -13:].any()
    assert np.array_equal(corners[20:40], GREY[20:40])


def test_a_border_alone_is_what_its_mask_takes_away():
    masked = changes.CHANGES["border masked (10 %)"](GREY)
    alone = changes.border_alone(GREY)
    assert not alone[6:-6, 6:-6].any()
    assert np.array_equal(alone + masked, GREY)


def test_blurred_lungs_keep_the_border_and_their_shade():
    """Of noise around two shades, side by side, the shades are left."""
    shades = np.where(np.arange(64) < 32, 60, 180)[None, :] + np.random.default_rng(0).normal(0, 20, (64, 64))
    grey = shades.clip(0, 255).astype(np.uint8)
    blurred = changes.lungs_blurred(grey)
    assert np.array_equal(changes.border_alone(blurred), changes.border_alone(grey))
    inside = blurred[6:-6, 6:-6].astype(float)
    assert inside.mean() == pytest.approx(grey[6:-6, 6:-6].mean(), abs=1)
    assert inside[:, :8].mean() < 100 < 140 < inside[:, -8:].mean()
    assert np.abs(np.diff(inside, axis=0)).max() <= 4 < np.abs(np.diff(grey.astype(float), axis=0)).max()


def test_a_sample_takes_whole_patients(tmp_path):
    split = small_set(tmp_path, per_class=24).split("test")
    split.rows["patient"] = [f"p{i // 3}" for i in range(len(split))]
    rows = changes.whole_patients(split, 0, 7)
    assert len(rows) == 6
    assert (split.rows["patient"].iloc[rows].value_counts() == 3).all()
    assert len(changes.whole_patients(split, 0, None)) == len(split)


def test_some_images_of_a_dataset_are_changed_when_they_are_read(tmp_path):
    split = small_set(tmp_path)
    dataset, rows, index = ImageDataset(split, network().spec), np.array([30, 2, 17]), np.array([2, 0])
    changed = changes.ChangedDataset(dataset, rows, lambda grey: 255 - grey)
    assert len(changed) == 3 and (changed.labels == split.labels()[rows]).all()
    assert (changed.rasters(index) == 255 - dataset.rasters(rows[index])).all()
    records, before = changed.records(index), dataset.records(rows[index])
    assert (records["raster"] == 255 - before["raster"]).all()
    assert (records["implausible"] == before["implausible"]).all()
