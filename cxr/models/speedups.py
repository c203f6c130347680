"""The same arithmetic, quicker: what modules of a network are told before they are trained."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def for_training(network: nn.Module, device: torch.device) -> None:
    """Change how the modules of `network` compute, not what: weights, names and results stay."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # autograd would copy the input of an in-place activation to keep it
        if device.type == "cpu" and type(module) is nn.Conv2d and _strided_depthwise(module):
            module.__class__ = _StridedDepthwise


class _StridedDepthwise(nn.Conv2d):
    """A depthwise convolution with stride, as one without whose other outputs are left out.

    oneDNN has no quick gradient for strided depthwise convolutions: measured on two AMD cores, 960 channels of 24 x 24
    pixels took 7 ms an image in bfloat16, and take 0.3 ms this way.
    """

    def forward(self, x: Tensor) -> Tensor:
        dense = functional.conv2d(x, self.weight, self.bias, 1, self.padding, self.dilation, self.groups)
        down, right = self.stride
        return dense[..., ::down, ::right].contiguous(memory_format=torch.channels_last)


def _strided_depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups == conv.in_channels > 1 and max(conv.stride) > 1 and conv.padding_mode == "zeros"
