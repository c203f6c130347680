"""On real X-rays: few of them are referred, and nearly all of what is no upright chest X-ray."""

import numpy as np
import pandas as pd
import pytest

from bench.strangers import KINDS, strangers
from cxr.imaging import decode
from cxr.serving.reasons import UNDECIDED, kinds
from cxr.serving.service import Service
from tests.helpers import CLASSES, probabilities

COUNT = 60  # of each kind
pytestmark = pytest.mark.xdist_group("real_bundle")


@pytest.fixture(scope="module")
def service(real_service) -> Service:
    return Service(real_service, threads=2)


def referred(service: Service, files: list[bytes]) -> float:
    """Share that is referred, but not for being undecided: that says more of this simple head than of the detector."""
    tables = pd.concat([service.answer(files[start : start + 60]) for start in range(0, len(files), 60)])
    undecided = tables["reasons"].map(lambda reasons: kinds(reasons) == [UNDECIDED])
    return float(((tables["status"] == "refer") & ~undecided).mean())


@pytest.mark.slow
def test_served_equals_evaluated_on_real_xrays(service, real_manifest, real_bundle):
    files = [file.read_bytes() for file in real_manifest.split("test").files()]
    table = service.answer(files)
    evaluated = probabilities(real_bundle, real_manifest.split("test"))
    np.testing.assert_allclose(table[[f"probability_{name}" for name in CLASSES]].to_numpy(), evaluated, atol=1e-4)
    assert list(table["label"]) == [CLASSES[index] for index in evaluated.argmax(1)]


@pytest.mark.slow
def test_few_xrays_are_referred(service, real_manifest):
    files = [file.read_bytes() for file in real_manifest.split("val").files()]
    assert referred(service, files) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nearly_all_of_what_is_no_upright_xray_is_referred(service, real_manifest, kind):
    xrays = [decode.decode_grey(file.read_bytes()) for file in real_manifest.split("test").files()]
    assert referred(service, strangers(kind, COUNT, xrays)) >= 0.95
