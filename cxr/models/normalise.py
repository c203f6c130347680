"""Normalisation of rasters to network inputs, in training, evaluation and the exported graph alike."""

import torch
from torch import Tensor, nn

from cxr.imaging.preprocess import InputSpec


class Normalise(nn.Module):
    """Grey levels 0..255 of shape (B, S, S), any dtype, to `float32` (B, 3, S, S): 0..1, then (x - mean) / std."""

    scale: Tensor
    shift: Tensor

    def __init__(self, spec: InputSpec):
        super().__init__()
        scale, shift = spec.affine()
        self.register_buffer("scale", torch.from_numpy(scale)[:, None, None])
        self.register_buffer("shift", torch.from_numpy(shift)[:, None, None])

    def forward(self, grey: Tensor) -> Tensor:
        """Contiguous in channels-last memory format, which convolutions are fastest in."""
        return (grey[:, None].float() * self.scale + self.shift).contiguous(memory_format=torch.channels_last)
