"""An ensemble answers with the mean of its members, also after it was saved."""

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.evaluation.predictor import Predictor
from cxr.models import bundle
from cxr.models.bundle import Bundle
from cxr.models.ensemble import combine
from cxr.serving.probabilities import softmax
from tests.helpers import network

RASTERS = np.random.default_rng(0).integers(0, 256, (5, 64, 64), dtype=np.uint8)


@pytest.fixture(scope="module")
def members():
    return [Bundle(network(seed=1), 2.0), Bundle(network(seed=2), 0.5)]


@pytest.mark.slow
def test_the_mean_of_the_members_calibrated_answers(members, tmp_path):
    made = combine(members)
    mean = np.mean([softmax(Predictor(b).logits(RASTERS) / b.temperature) for b in members], axis=0)
    np.testing.assert_allclose(softmax(Predictor(made).logits(RASTERS)), mean, atol=1e-6)
    bundle.save(made, tmp_path)
    loaded = bundle.load(tmp_path)
    assert loaded.network.members == 2
    np.testing.assert_allclose(Predictor(loaded).logits(RASTERS), Predictor(made).logits(RASTERS), atol=1e-6)


def test_members_must_fit_together(members):
    with pytest.raises(CxrError, match="at least 2"):
        combine(members[:1])
    with pytest.raises(CxrError, match="differ in spec"):
        combine([members[0], Bundle(network(size=96))])
    with pytest.raises(CxrError, match="differ in name"):
        combine([members[0], Bundle(network("resnet18"))])
