"""Maps of random weights differ from those of the network, which stays as it was; maps that do not are found out."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from cxr.evaluation import sanity
from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from cxr.models.bundle import Bundle
from tests.helpers import CLASSES, network

RASTERS = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
SAMPLE = Sample.from_labels(np.zeros(4, int), np.arange(4).astype(str), CLASSES, 0)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm/convnextv2_atto"])
def test_the_maps_change_and_the_network_does_not(name):
    net = network(name)
    predictor = Predictor(Bundle(net))
    maps = ClassActivationMap.of(predictor, net)
    before = {key: value.clone() for key, value in predictor.module.state_dict().items()}
    found, again = (sanity.sanity(maps, net, RASTERS, SAMPLE, seed=3) for _ in range(2))
    assert found == again != sanity.sanity(maps, net, RASTERS, SAMPLE, seed=4)
    after = predictor.module.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert found.images == 4 and found.depends
    assert [stage.randomised for stage in found.cascade][:: len(found.cascade) - 1] == ["the head", "all weights"]
    assert found.cascade[-1].similarity.value < sanity.SAME


def test_maps_of_the_image_alone_are_found_out(monkeypatch):
    """As of a method that finds edges whatever the weights are."""
    net = network()
    maps = ClassActivationMap.of(Predictor(Bundle(net)), net)
    monkeypatch.setattr(ClassActivationMap, "maps", lambda self, rasters: maps.maps_and_logits(rasters)[0])
    found = sanity.sanity(maps, net, RASTERS, SAMPLE, seed=0)
    assert not found.depends
    assert found.cascade[-1].similarity.value == pytest.approx(1)


def test_similarity_is_spearmans_and_a_flat_map_is_like_no_other():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4, 5)).round(0)
    second[2] = 7.0
    found = sanity.rank_correlation(first, second)
    assert found[:2] == pytest.approx([spearmanr(first[i].ravel(), second[i].ravel()).statistic for i in range(2)])
    assert found[2] == 0


def test_random_weights_keep_their_mean_and_spread():
    layer = torch.nn.Linear(200, 50)
    old = layer.weight.detach().clone()
    sanity.randomise(layer, torch.Generator().manual_seed(0))
    new = layer.weight.detach()
    assert not torch.equal(old, new) and abs(np.corrcoef(old.flatten(), new.flatten())[0, 1]) < 0.05
    assert new.std().item() == pytest.approx(old.std().item(), rel=0.05)
