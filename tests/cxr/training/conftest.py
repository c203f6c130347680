"""What the tests of trainings share: deterministic algorithms, and a small set."""

import pytest
import torch

from cxr.models import device
from tests.helpers import small_set


@pytest.fixture(scope="module")
def deterministic():
    device.prepare(0, deterministic=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return small_set(tmp_path_factory.mktemp("set"))
