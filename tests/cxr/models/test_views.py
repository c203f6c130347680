"""Views are the image and crops of it, and an answer is the mean of the logits of all of them."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cxr.errors import CxrError
from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.predictor import Predictor
from cxr.models.bundle import Bundle
from cxr.models.normalise import Normalise
from cxr.models.views import MOST, Views
from tests.helpers import network, settings_with

RASTERS = np.random.default_rng(0).integers(0, 256, (11, 64, 64), dtype=np.uint8)


def test_each_crop_is_where_it_should_be():
    down, right = np.mgrid[0:100, 0:100].astype(np.uint8)
    views = Views(MOST, 100)
    seen = views(torch.from_numpy(np.stack([down, right])))  # (views x 2, S, S)
    assert seen.shape == (2 * MOST, 100, 100) and seen.dtype == torch.float32
    means = seen.mean((1, 2)).reshape(MOST, 2).tolist()
    whole, centre, left, further_right, top, bottom = [[49.5 + 5 * d, 49.5 + 5 * r] for d, r in (
        (0, 0), (0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)
    )]  # fmt: skip
    for got, wanted in zip(means, (whole, centre, left, further_right, top, bottom), strict=True):
        assert got == pytest.approx(wanted, abs=0.01)
    spans = (seen.amax((1, 2)) - seen.amin((1, 2))).tolist()
    assert spans == pytest.approx([99, 99, *[89] * (2 * MOST - 2)], abs=0.01), "0.9 of the side"
    assert torch.equal(views.of_images(seen), torch.from_numpy(np.stack([down, right])).float())


def test_one_view_is_the_raster_itself():
    raster = torch.from_numpy(RASTERS)
    assert Views(1, 64)(raster) is raster


def test_the_settings_know_how_many_there_are():
    assert settings_with({"evaluate.views": MOST}).evaluate.views == MOST
    for wrong in (0, MOST + 1):
        with pytest.raises(CxrError, match=r"evaluate\.views"):
            settings_with({"evaluate.views": wrong})


def test_an_answer_is_the_mean_of_the_logits_of_the_views():
    net = network()
    net.views = 3
    predictor, grey = Predictor(Bundle(net)), torch.from_numpy(RASTERS).float()[:, None]
    crops = [functional.interpolate(grey[:, :, 3:61, at : at + 58], (64, 64), mode="bilinear") for at in (3, 0)]
    with torch.no_grad():
        alone = [net.module(Normalise(net.spec)(view[:, 0])).numpy() for view in (grey, *crops)]
    np.testing.assert_allclose(predictor.logits(RASTERS), np.mean(alone, 0), atol=1e-4)
    np.testing.assert_allclose(predictor.logits_of_images(RASTERS), alone[0], atol=1e-4)
    one_by_one = np.concatenate([predictor.logits(RASTERS[i : i + 1]) for i in range(len(RASTERS))])
    np.testing.assert_allclose(predictor.logits(RASTERS), one_by_one, atol=1e-5)
    maps = ClassActivationMap.of(predictor, net).maps(RASTERS)
    np.testing.assert_allclose(maps.mean((2, 3)), alone[0], atol=1e-4)  # of the image itself
