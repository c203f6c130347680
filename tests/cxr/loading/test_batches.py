"""Loader: every image once, in an order that the seed decides, equal to what evaluation sees."""

import numpy as np
import pytest
import torch

from cxr.errors import CxrError
from cxr.imaging import decode
from cxr.imaging.preprocess import InputSpec
from cxr.loading import batches
from cxr.loading.augment import Augment
from cxr.loading.rasters import ImageDataset
from cxr.models.normalise import Normalise
from tests.helpers import settings_with, small_set

SPEC = InputSpec(size=32, resize=36)


@pytest.fixture
def manifest(tmp_path):
    return small_set(tmp_path)


def image_batches(manifest, **more) -> batches.ImageLoader:
    given = {"batch_size": 7, "device": torch.device("cpu"), **more}
    return batches.ImageLoader(ImageDataset(manifest, SPEC), SPEC, **given)


def test_without_shuffling_they_are_the_pictures_as_evaluated(manifest):
    found = list(image_batches(manifest).epoch(1))
    x, y = (torch.cat(part) for part in zip(*found, strict=True))
    rasters = np.stack([SPEC.to_raster(decode.read_grey(file)) for file in manifest.files()])
    torch.testing.assert_close(x, Normalise(SPEC)(torch.from_numpy(rasters)), atol=1e-6, rtol=0)
    assert y.tolist() == manifest.labels().tolist()
    assert found[0][0].is_contiguous(memory_format=torch.channels_last)


def test_every_image_once_in_another_order_each_epoch(manifest):
    shuffled = image_batches(manifest, shuffle=True, seed=4, batch_size=8)
    epochs = [torch.cat([x[:, 0].double().sum((1, 2)) for x, _ in shuffled.epoch(e)]) for e in (1, 2)]
    torch.testing.assert_close(epochs[0].sort().values, epochs[1].sort().values)
    assert not torch.equal(epochs[0], epochs[1])
    assert shuffled.images == len(manifest)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_epoch_depends_on_seed_and_number_alone(manifest, workers):
    augment = Augment(settings_with({"train.augment.rotate": 10, "train.augment.contrast": 0.3}).train.augment, 32)
    make = lambda w: image_batches(manifest, shuffle=True, seed=4, augment=augment, workers=w)  # noqa: E731
    one = list(make(1).epoch(3))
    torch.manual_seed(99)
    two = list(make(workers).epoch(3))
    assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(one, two, strict=True))


def test_the_view_of_an_image_does_not_depend_on_the_batch_size(manifest):
    augment = Augment(settings_with({"train.augment.rotate": 10, "train.augment.contrast": 0.3}).train.augment, 32)
    make = lambda size: image_batches(manifest, shuffle=True, seed=4, augment=augment, batch_size=size)  # noqa: E731
    views = [torch.cat([x for x, _ in make(size).epoch(2)]) for size in (4, 9, 36)]
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])


def test_balanced_sampling_makes_classes_equally_frequent(manifest):
    virus = (manifest.rows["label"] == "virus").to_numpy()
    uneven = type(manifest)(manifest.rows[~virus | (virus.cumsum() <= 2)], manifest.root, manifest.classes)
    loader = image_batches(uneven, shuffle=True, seed=4, sampler="balanced")
    drawn = uneven.labels()[torch.cat([indices for epoch in range(40) for indices in loader.batches(epoch)])]
    shares = np.bincount(drawn) / len(drawn)
    np.testing.assert_allclose(shares, [1 / 3] * 3, atol=0.05)  # 2 of 26 images are virus


def test_a_last_batch_of_one_is_left_for_another_epoch(manifest):
    training = image_batches(manifest, shuffle=True, batch_size=35)
    assert (len(manifest), len(training), training.images) == (36, 1, 35)
    assert image_batches(manifest, batch_size=35).images == 36


@pytest.mark.parametrize("more", [{}, {"shuffle": True}, {"shuffle": True, "sampler": "balanced"}])
@pytest.mark.parametrize("size", [1, 7, 35, 36, 50])
def test_the_sizes_of_batches_are_known_before_an_order_is_drawn(manifest, monkeypatch, size, more):
    loader = image_batches(manifest, batch_size=size, **more)
    drawn = [len(indices) for indices in loader.batches(3)]
    monkeypatch.setattr(batches, "seeded", None)
    assert loader.sizes() == drawn
    assert (loader.images, len(loader)) == (sum(drawn), len(drawn))


def test_a_file_that_changed_stops_the_epoch(manifest):
    manifest.files()[5].write_bytes(b"other")
    with pytest.raises(CxrError, match="has changed since the split was made"):
        list(image_batches(manifest).epoch(1))


def test_class_weights_are_scikit_learns(manifest):
    from sklearn.utils.class_weight import compute_class_weight

    uneven = manifest.split("train")
    uneven = type(uneven)(uneven.rows.iloc[4:], uneven.root, uneven.classes)
    labels = uneven.labels()
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(batches.class_weights(uneven).numpy(), wanted, rtol=1e-6)
