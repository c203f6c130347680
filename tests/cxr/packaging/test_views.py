"""A bundle with several views is served as it was evaluated."""

import numpy as np
import pytest

from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.predictor import Predictor
from cxr.serving.service import Service
from tests.helpers import deployed, network, probabilities


@pytest.mark.slow
def test_served_equals_evaluated_with_several_views(tmp_path):
    net = network()
    net.views = 3
    made = deployed(tmp_path, net)
    service, split = Service(made.folder, threads=1), made.manifest.split("test")
    table = service.answer([file.read_bytes() for file in split.files()], with_heatmap=True)
    answered = table[[f"probability_{name}" for name in split.classes]].to_numpy()
    np.testing.assert_allclose(answered, probabilities(made.bundle, split), atol=1e-5)
    assert table["heatmap"].notna().all()

    predictor, rasters = Predictor(made.bundle), np.random.default_rng(0).integers(0, 256, (25, 64, 64), dtype=np.uint8)
    logits, features, maps = service.session.run(rasters)
    np.testing.assert_allclose(logits, predictor.logits(rasters), atol=1e-4)
    for alone in (0, 11, 24):
        np.testing.assert_allclose(service.session.run(rasters[alone : alone + 1])[0][0], logits[alone], atol=1e-5)
    itself = predictor.logits_of_images(rasters)
    assert np.abs(logits - itself).max() > 0.01, "else the views say nothing"
    head = net.module.get_submodule(net.head)
    np.testing.assert_allclose(
        features @ head.weight.detach().numpy().T + head.bias.detach().numpy(), itself, atol=1e-4
    )
    np.testing.assert_allclose(maps, ClassActivationMap.of(predictor, net).maps(rasters), atol=1e-3)
