"""Mixing: pictures and labels are mixed in the same shares, whatever the batch."""

import numpy as np
import pytest
import torch

from cxr.imaging.preprocess import InputSpec
from cxr.loading.augment import Augment
from cxr.loading.batches import ImageLoader, seeded
from cxr.loading.mixing import BLANK, Mixing, Partners
from cxr.models.normalise import Normalise
from cxr.training.losses import FocalLoss
from tests.helpers import settings_with

COUNT, SIDE = 300, 40


def augmentation(given: dict[str, float]):
    keys = {"cache.views": 0} | {f"finetune.augment.{name}": value for name, value in given.items()}
    return settings_with(keys).finetune.augment


def mixed(mixup: float, cutmix: float, frame: float = 0.0, blank: float = 0.0):
    """Every image is black of class 0, every partner white of class 1: the mean tells the share."""
    given = {"mixup": mixup, "cutmix": cutmix, "frame": frame, "blank": blank}
    settings = augmentation(given)
    mixing = Mixing(settings, 3)
    partners = mixing.draw(COUNT, seeded(1))
    black, white = torch.zeros(COUNT, SIDE, SIDE), torch.full((COUNT, SIDE, SIDE), 255.0)
    own, other = torch.zeros(COUNT, dtype=torch.int64), torch.ones(COUNT, dtype=torch.int64)
    return views(mixing, black, white, partners), mixing.labels(own, other, partners), partners


def views(mixing: Mixing, own: torch.Tensor, other: torch.Tensor, partners: Partners) -> torch.Tensor:
    """Mixed as the loader does it, without augmentation between."""
    own = mixing.on_rasters(own, other, partners)
    return mixing.blend(own, other, partners) if mixing.settings.blends else own


@pytest.mark.parametrize("mixup, cutmix", [(0.4, 0), (0, 1.0), (0.4, 1.0)])
def test_labels_follow_the_pictures(mixup, cutmix):
    x, y, partners = mixed(mixup, cutmix)
    torch.testing.assert_close(y.sum(1), torch.ones(COUNT))
    torch.testing.assert_close(y[:, 1], x.mean((1, 2)) / 255, atol=0.04, rtol=0)  # squares are of whole pixels
    assert (y[:, 0] >= 0.5).all(), "an image stays mostly itself"
    assert 0.05 < float(y[:, 1].mean()) < 0.45
    assert sorted(partners.index.tolist()) == list(range(COUNT))


def test_each_kind_does_what_its_name_says():
    blended, pasted, both = (mixed(*given)[0] for given in ((0.4, 0), (0, 1.0), (0.4, 1.0)))
    assert all(len(image.unique()) == 1 for image in blended)
    assert set(pasted.unique().tolist()) == {0.0, 255.0}
    kinds = [len(image.unique()) == 2 for image in both]
    assert 0.3 < sum(kinds) / COUNT < 0.6


def test_a_frame_of_another_image_leaves_the_middle_and_the_label():
    x, y, partners = mixed(0, 0, frame=0.25)
    assert torch.equal(y, torch.zeros(COUNT, dtype=torch.int64))
    middle = slice(SIDE // 4, -SIDE // 4)
    assert not x[:, middle, middle].any()
    framed = x[:, 0, 0] > 0
    assert 0.35 < framed.float().mean() < 0.65
    white = (x > 0).float().mean((1, 2))
    torch.testing.assert_close(white, 1 - (1 - 2 * partners.frame) ** 2, atol=0.11, rtol=0)  # of whole pixels


def test_frames_are_exchanged_beside_blends():
    x, y, partners = mixed(0.4, 0, frame=0.25)
    torch.testing.assert_close(y[:, 1], x[:, SIDE // 2, SIDE // 2] / 255)
    assert (x[partners.frame > 0.1, 0, 0] == 255).all()


def test_a_blanked_image_keeps_a_frame_and_is_of_every_class_alike():
    settings = augmentation({"blank": 0.25})
    mixing = Mixing(settings, 3)
    partners = mixing.draw(COUNT, seeded(1))
    white, own = torch.full((COUNT, SIDE, SIDE), 255.0), torch.full((COUNT,), 2)
    x, y = views(mixing, white, white, partners), mixing.labels(own, own, partners)
    blanked = x[:, SIDE // 2, SIDE // 2] == 0
    assert 0.15 < blanked.float().mean() < 0.35
    assert (x[~blanked] == 255).all() and torch.equal(y[~blanked], torch.eye(3)[own[~blanked]])
    torch.testing.assert_close(y[blanked], torch.full_like(y[blanked], 1 / 3))
    left = (x[blanked, SIDE // 2] == 255).float().mean(1) / 2  # width of the frame on either side
    assert BLANK[0] - 0.025 <= left.min() < 0.1 and 0.15 < left.max() <= BLANK[1] + 0.025
    assert (x[:, 0] == 255).all() and (x[:, -1] == 255).all()


@pytest.mark.parametrize("given", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_blanked_images_have_flat_labels_and_nothing_of_another_beside_blends(given):
    x, y, partners = mixed(**{"mixup": 0, "cutmix": 0} | given, blank=0.5)
    blanked = partners.blank < 0.5
    assert 0.35 < blanked.float().mean() < 0.65
    torch.testing.assert_close(y[blanked], torch.full_like(y[blanked], 1 / 3))
    assert not x[blanked].any(), "a white partner shows"
    if "cutmix" in given:
        return
    torch.testing.assert_close(y[~blanked, 1], x[~blanked, SIDE // 2, SIDE // 2] / 255)


@pytest.mark.parametrize("loss", [torch.nn.CrossEntropyLoss, FocalLoss])
def test_the_loss_of_a_blanked_image_is_least_where_every_class_is_as_likely(loss):
    """Whatever the weights of the classes: those of rare ones would else make them the answer to no lungs."""
    weights = torch.tensor([1.4, 0.6, 1.2])
    y = Mixing(augmentation({"blank": 0.25}), 3, weights).blank_label[None]
    logits = torch.zeros(1, 3, requires_grad=True)
    loss(weight=weights)(logits, y).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(1, 3))


@pytest.mark.parametrize("given", [{"frame": 0.2}, {"blank": 0.3}, {"frame": 0.2, "blank": 0.3, "mixup": 0.4}])
def test_mixing_does_not_depend_on_the_batch(given):
    """An image gets the same frame, blend and label in batches of any size."""
    settings = augmentation(given)
    rasters = np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE), np.uint8)
    spec = InputSpec(size=SIDE, resize=SIDE)

    class Stored:
        labels = np.array([0, 1, 2, 0, 1, 2])

        def __len__(self):
            return len(rasters)

        def rasters(self, index):
            return rasters[index]

    found = []
    for size in (2, 6):
        loader = ImageLoader(
            Stored(),
            spec,
            batch_size=size,
            device=torch.device("cpu"),
            shuffle=True,
            augment=Augment(settings, SIDE),
            mixing=Mixing(settings, 3),
        )
        batches = list(loader.epoch(3))
        found.append([torch.cat(parts) for parts in zip(*batches, strict=True)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(found[0][0], Normalise(spec)(torch.from_numpy(rasters)))
