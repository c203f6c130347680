"""Normalisation is that of torchvision, in the memory format that convolutions are fastest in."""

import numpy as np
import torch
from torchvision.transforms import v2

from cxr.imaging.preprocess import InputSpec
from cxr.models.normalise import Normalise

SPEC = InputSpec(size=32, resize=36)


def test_it_agrees_with_torchvision():
    grey = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8))
    rgb = grey[:, None].expand(-1, 3, -1, -1)
    expected = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(SPEC.mean, SPEC.std)])(rgb)
    normalised = Normalise(SPEC)(grey)
    torch.testing.assert_close(normalised, expected, atol=2e-6, rtol=0)
    assert torch.equal(Normalise(SPEC)(grey.float()), normalised)
    assert normalised.is_contiguous(memory_format=torch.channels_last)
