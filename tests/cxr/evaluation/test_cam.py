"""The mean of a class activation map, with the bias included, is the logit."""

import numpy as np
import pytest

from cxr.evaluation import cam
from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.predictor import Predictor
from cxr.models.bundle import Bundle
from tests.helpers import network


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "timm/resnet26d", "timm/convnextv2_atto"])
def test_the_mean_of_a_map_is_the_logit(name):
    net = network(name)
    predictor = Predictor(Bundle(net))
    rasters = np.random.default_rng(0).integers(0, 256, (11, 64, 64), dtype=np.uint8)
    maps = ClassActivationMap.of(predictor, net).maps(rasters)
    np.testing.assert_allclose(maps.mean((2, 3)), predictor.logits(rasters), atol=1e-4)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "alexnet", "timm/vit_tiny_patch16_224"])
def test_none_where_no_map_is_exact(name):
    net = network(name)
    assert ClassActivationMap.of(Predictor(Bundle(net)), net) is None


def test_heat_and_its_share_inside():
    centre, corner = np.zeros((8, 8)), np.zeros((8, 8))
    centre[3:5, 3:5], corner[0, 0] = 2.0, 2.0
    assert cam.heat(centre, 64).max() == pytest.approx(1)
    assert cam.share_inside(centre) > 0.95
    assert cam.share_inside(corner) < 0.4
    assert cam.share_inside(np.ones((8, 8))) == pytest.approx(0.5625, abs=0.01)
    assert cam.share_inside(-np.ones((8, 8))) == 0
