"""Devices that are asked for are there, and random states come back."""

import random

import numpy as np
import pytest
import torch

from cxr.common import hardware
from cxr.errors import CxrError
from cxr.models import device


def test_auto_takes_what_is_available_and_a_named_device_must_be():
    assert device.pick("cpu", "float32").dtype == torch.float32
    if not torch.cuda.is_available():
        assert device.pick("auto").device.type in ("cpu", "mps")
        with pytest.raises(CxrError, match="device 'cuda' is not available; this machine has: .*cpu; device=auto"):
            device.pick("cuda")


def test_never_more_threads_than_cores():
    device.prepare(0, deterministic=False)
    assert torch.get_num_threads() <= hardware.cores()


def test_random_states_come_back_after_a_checkpoint(tmp_path):
    device.prepare(3, deterministic=True)
    torch.save(device.random_states(), tmp_path / "r.pt")
    first = (random.random(), np.random.rand(), torch.rand(1))
    device.restore_random_states(torch.load(tmp_path / "r.pt", weights_only=True))
    assert (random.random(), np.random.rand(), torch.rand(1)) == first
    torch.use_deterministic_algorithms(False)


def test_float32_is_never_rounded_to_tf32():
    torch.backends.cudnn.allow_tf32 = True
    device.prepare(0, deterministic=False)
    assert not torch.backends.cudnn.allow_tf32
    assert "tf32" not in (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)
    assert not torch.backends.cuda.matmul.allow_tf32
