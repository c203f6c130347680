"""Degradations do what their names say, to each image by its own strength."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from cxr.datasets import phantom
from cxr.loading import degrade
from cxr.models.device import widest_float

SIDE = 96


@pytest.fixture(scope="module")
def grey() -> torch.Tensor:
    """Three phantoms, `float32` of shape (3, SIDE, SIDE)."""
    files = [phantom.example(label, 1) for label in ("normal", "bacteria", "virus")]
    images = [Image.open(io.BytesIO(file)).convert("L").resize((SIDE, SIDE)) for file in files]
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).float()


def strengths(*values: float) -> torch.Tensor:
    return torch.tensor(values)


PLACE = torch.full((3, 2), 0.5)
TILE = torch.randn(2 * SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(0))
CHANGES = {
    "blur": lambda grey, s: degrade.blur(grey, s / 10, 2.0),
    "noise": lambda grey, s: degrade.noise(grey, s, PLACE[: len(grey)], TILE),
    "jpeg": degrade.jpeg,
    "border": lambda grey, s: degrade.mask_border(grey, s / 100),
    "corners": lambda grey, s: degrade.mask_corners(grey, s / 100),
    "erase": lambda grey, s: degrade.erase(grey, s / 100, PLACE[: len(grey)], torch.full((len(grey),), 7.0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_zero_leaves_an_image_and_every_image_has_its_own_strength(grey, name):
    change = CHANGES[name]
    changed = change(grey, strengths(0, 20, 3))
    assert torch.equal(changed[0], grey[0])
    assert not torch.equal(changed[1], grey[1])
    for i, strength in enumerate((0.0, 20.0, 3.0)):
        alone = change(grey[i : i + 1], strengths(strength))
        assert torch.equal(alone[0], changed[i]), "it depends on the other images of the batch"


@pytest.mark.parametrize("name", ["blur", "jpeg"])
def test_on_a_cpu_what_no_image_needs_is_not_computed(grey, name):
    assert CHANGES[name](grey, strengths(0, 0, 0)) is grey


def test_a_blur_is_that_of_pillow(grey):
    ours = degrade.blur(grey[:1], strengths(2.0), 2.0)[0].numpy()
    theirs = Image.fromarray(grey[0].numpy().astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
    assert np.abs(ours - np.asarray(theirs))[8:-8, 8:-8].mean() < 1.0  # Pillow's is three boxes


@pytest.mark.parametrize("quality", [10, 30, 60, 90])
def test_compression_is_that_of_libjpeg(grey, quality):
    buffer = io.BytesIO()
    Image.fromarray(grey[1].numpy().astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    theirs = np.asarray(Image.open(buffer)).astype(float)
    ours = degrade.jpeg(grey[1:2], strengths(quality))[0].numpy()
    difference, lost = np.abs(ours - theirs), np.abs(theirs - grey[1].numpy())
    assert (difference <= 2).mean() > 0.97  # libjpeg rounds halves otherwise
    assert difference.mean() < 0.25 * lost.mean()


def test_compression_without_float64_is_nearly_the_same(grey, monkeypatch):
    """Apple's GPUs lack it."""
    assert widest_float(torch.device("mps")) is torch.float32
    wide = degrade.jpeg(grey, strengths(30, 60, 90))
    monkeypatch.setattr(degrade, "widest_float", lambda device: torch.float32)
    degrade._jpeg_tables.cache_clear()
    narrow = degrade.jpeg(grey, strengths(30, 60, 90))
    degrade._jpeg_tables.cache_clear()
    assert float((narrow == wide).float().mean()) > 0.99


def test_compression_takes_sides_that_are_no_multiple_of_its_blocks(grey):
    assert degrade.jpeg(grey[:, :91, :91], strengths(50, 50, 50)).shape == (3, 91, 91)


def test_noise_has_the_deviation_it_was_told(grey):
    added = degrade.noise(grey, strengths(5, 10, 20), torch.tensor([[0.0, 0.3], [0.5, 1.0], [0.9, 0.1]]), TILE) - grey
    for image, deviation in zip(added, (5, 10, 20), strict=True):
        assert float(image.std()) == pytest.approx(deviation, rel=0.05)
    assert not torch.equal(added[0] / 5, added[1] / 10)


def test_masks_black_out_the_share_they_were_told():
    white = torch.full((1, 100, 100), 200.0)
    assert float((degrade.mask_border(white, strengths(0.1)) == 0).float().mean()) == pytest.approx(1 - 0.8**2)
    assert float((degrade.mask_corners(white, strengths(0.2)) == 0).float().mean()) == pytest.approx(4 * 0.04)
    erased = degrade.erase(white, strengths(0.3), torch.tensor([[0.0, 1.0]]), strengths(50))
    assert (erased[0, -30:, :30] == 50).all() or (erased[0, :30, -30:] == 50).all()
    assert int((erased == 50).sum()) == 900
