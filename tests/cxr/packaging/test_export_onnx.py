"""The ONNX file answers as the network does, for any number of images, with what the detector and the heatmap need."""

import numpy as np
import pytest

from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.predictor import Predictor
from cxr.models.bundle import Bundle
from cxr.models.ensemble import combine
from cxr.packaging.export_onnx import to_onnx
from cxr.serving.session import Session
from tests.helpers import ROOT, network

RASTERS = np.random.default_rng(0).integers(0, 256, (5, 64, 64), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "has_maps"),
    [
        ("efficientnet_lite0", True),
        ("resnet18", True),
        ("mobilenet_v3_small", False),  # its head has a hidden layer
        ("swin_t", True),
        ("timm/resnet26d", True),
        ("timm/convnextv2_atto", True),
    ],
)
def test_logits_features_and_maps(name, has_maps):
    net = network(name)
    bundle = Bundle(net)
    session, predictor = Session(to_onnx(bundle), 2, 64), Predictor(bundle)
    logits, features, maps = session.run(RASTERS)
    np.testing.assert_allclose(logits, predictor.logits(RASTERS), atol=1e-5)
    for alone in range(len(RASTERS)):
        np.testing.assert_allclose(session.run(RASTERS[alone : alone + 1])[0][0], logits[alone], atol=1e-5)
    head = net.module.get_submodule(net.head)
    weights, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
    np.testing.assert_allclose(features @ weights.T + bias, logits, atol=1e-4)
    exact = ClassActivationMap.of(predictor, net)
    assert maps.shape[:2] == (5, 3 if has_maps else 0)
    assert (exact is not None) == has_maps
    if exact:
        np.testing.assert_allclose(maps, exact.maps(RASTERS), atol=1e-3)


@pytest.mark.slow
def test_an_ensemble_is_one_network():
    members = [Bundle(network(seed=seed), 1.0 + seed) for seed in range(2)]
    together = combine(members)
    together.network.views = 2
    logits, features, maps = Session(to_onnx(together), 2, 64).run(RASTERS)
    np.testing.assert_allclose(logits, Predictor(together).logits(RASTERS), atol=1e-5)
    assert features.shape == (5, 2 * 1280) and maps.shape[1] == 0


@pytest.mark.slow
def test_the_file_holds_no_source_lines_nor_paths_of_this_machine():
    """It would change with every line that moves, and tell where the project lies."""
    exported = to_onnx(Bundle(network()))
    assert b".py" not in exported and str(ROOT).encode() not in exported
