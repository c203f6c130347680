"""Augmentation does what its settings say, in their ranges, and nothing where they are off."""

import pytest
import torch

from cxr.imaging.preprocess import InputSpec
from cxr.loading.augment import Augment, raster_spec
from cxr.loading.batches import seeded
from tests.helpers import settings_with

SIDE = 64


def settings(**changed):
    return settings_with({f"train.augment.{name}": value for name, value in changed.items()}).train.augment


def augmented(rasters: torch.Tensor, seed: int = 0, **changed) -> torch.Tensor:
    augment = Augment(settings(**changed), SIDE)
    return augment(rasters, augment.draw(len(rasters), seeded(seed)))


@pytest.fixture
def rasters():
    return torch.randint(0, 256, (8, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def ramp(rows: int = 32) -> torch.Tensor:
    """Grey that rises from left to right, 0 to 252."""
    return (torch.arange(SIDE) * 4).to(torch.uint8).expand(rows, SIDE, SIDE)


def test_off_leaves_the_input_as_it_is(rasters):
    assert settings().off
    assert torch.equal(augmented(rasters), rasters.float())


def test_flips_mirror_and_are_off_by_default(rasters):
    flipped = augmented(rasters, flip="true")
    same = (flipped - rasters.float()).abs().amax((1, 2)) < 0.01
    mirrored = (flipped - rasters.float().flip(2)).abs().amax((1, 2)) < 0.01
    assert (same ^ mirrored).all()
    assert same.any()
    assert mirrored.any()


def test_a_crop_keeps_the_share_it_was_told():
    """On a ramp, the range that is left tells the side of the crop."""
    seen = augmented(ramp(), crop_scale="[0.25, 0.49]")
    sides = (seen.amax((1, 2)) - seen.amin((1, 2))) / 252
    assert sides.min() > 0.5 - 0.05
    assert sides.max() < 0.7 + 0.05
    assert sides.max() - sides.min() > 0.1


def test_the_sides_of_a_crop_have_the_ratio_they_were_told():
    """The area stays what it is, whichever side is longer."""
    across, down = ramp(200), ramp(200).transpose(1, 2)
    given = {"crop_scale": "[0.3, 0.3]", "aspect": 1.0}
    wide, tall = (
        (v.amax((1, 2)) - v.amin((1, 2))) / 252 for v in (augmented(across, **given), augmented(down, **given))
    )
    torch.testing.assert_close(wide * tall, torch.full((200,), 0.3), atol=0.03, rtol=0)
    assert 0.45 < (wide / tall).min() < 0.6 and 1.7 < (wide / tall).max() < 2.2


def test_a_slant_has_the_angle_it_was_told_and_leaves_rows_where_they_are():
    half = torch.zeros(200, SIDE, SIDE, dtype=torch.uint8)
    half[:, :, : SIDE // 2] = 200
    # For every row, pixels from a column that stays inside the image.
    edges = augmented(half, shear=10.0)[:, :, SIDE // 4 :].sum(2) / 200
    slopes = (edges[:, -9] - edges[:, 8]) / (SIDE - 17)
    steepest = torch.tensor(10.0).deg2rad().tan()
    assert -steepest * 1.02 < slopes.min() < -0.9 * steepest and 0.9 * steepest < slopes.max() < steepest * 1.02
    lower = augmented(half.transpose(1, 2), shear=10.0)[:, :, SIDE // 2 - 20 : SIDE // 2 + 20]
    torch.testing.assert_close(lower, half.transpose(1, 2)[:, :, :40].float(), atol=0.1, rtol=0)


def test_a_crop_stays_inside_the_picture():
    white = torch.full((64, SIDE, SIDE), 200, dtype=torch.uint8)
    assert augmented(white, crop_scale="[0.3, 1.0]").min() > 199


def test_a_shift_leaves_the_picture_as_far_as_it_was_told():
    white = torch.full((64, SIDE, SIDE), 200, dtype=torch.uint8)
    lost = (augmented(white, translate=0.25)[:, SIDE // 2] < 1).sum(1) / SIDE
    assert 0.15 < lost.max() <= 0.27


def test_intensities_stay_in_range(rasters):
    toned = augmented(rasters, brightness=0.5, contrast=0.9, gamma=1.0)
    assert (toned.amin(), toned.amax()) == (0, 255)


def test_brightness_and_contrast_have_the_size_they_were_told():
    grey = torch.full((200, SIDE, SIDE), 100, dtype=torch.uint8)
    assert 20 < (augmented(grey, brightness=0.1) - 100).abs().max() <= 25.5
    half = torch.cat([torch.full((200, SIDE, SIDE // 2), v, dtype=torch.uint8) for v in (100, 140)], 2)
    spread = augmented(half, contrast=0.5)
    factor = (spread.amax((1, 2)) - spread.amin((1, 2))) / 40
    assert 0.5 <= factor.min() < 0.6
    assert 1.4 < factor.max() <= 1.5


def test_what_is_drawn_for_one_setting_does_not_depend_on_another(rasters):
    both = augmented(rasters, brightness=0.2, contrast=0.3)
    alone = augmented(rasters, contrast=0.3)
    inside = (both > 0) & (both < 255) & (alone > 0) & (alone < 255)
    for picture in range(8):
        difference = (both - alone)[picture][inside[picture]]
        assert difference.max() - difference.min() < 0.01


def test_clean_images_are_spared_and_the_others_get_what_they_would():
    rasters = torch.randint(0, 255, (400, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    changes = {"blur": 4.0, "noise": 0.2, "jpeg": 10, "erase": 0.2, "border": 0.2, "corners": 0.3}
    every, some = augmented(rasters, **changes), augmented(rasters, clean=0.5, **changes)
    spared = (some == rasters).all((1, 2))
    assert 0.4 < spared.float().mean() < 0.6
    assert torch.equal(some[~spared], every[~spared])


def test_the_seed_decides(rasters):
    assert torch.equal(augmented(rasters, 1, rotate=20), augmented(rasters, 1, rotate=20))
    assert not torch.equal(augmented(rasters, 1, rotate=20), augmented(rasters, 2, rotate=20))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_an_image_gets_the_same_view_in_any_batch(rasters, size):
    every = {"crop_scale": "[0.5, 1.0]", "rotate": 20, "translate": 0.1, "gamma": 0.3, "contrast": 0.3, "flip": "true"}
    augment = Augment(settings(brightness=0.1, **every), SIDE)
    draws = augment.draw(len(rasters), seeded(1))
    parts = torch.arange(len(rasters)).split(size)
    assert torch.equal(torch.cat([augment(rasters[part], draws.of(part)) for part in parts]), augment(rasters, draws))


def test_crops_get_a_raster_with_the_pixels_they_need():
    spec = InputSpec(size=224, resize=256)
    assert raster_spec(spec, settings()) is spec
    finer = raster_spec(spec, settings(crop_scale="[0.5, 1.0]"))
    assert finer.size == 320
    assert finer.size * 0.5**0.5 >= 224
    assert raster_spec(spec, settings(crop_scale="[0.05, 1.0]")).size == 448
