"""Faster ways to the same arithmetic, for training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_WIDTH = 3  # the largest width of a kernel for which oneDNN has a fast gradient of the weights in bfloat16


def for_training(network: nn.Module) -> None:
    """Change modules of `network` in place; names, weights and results stay the same."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 - autograd would copy the input to keep it


class FastDepthwise(TorchFunctionMode):
    """A context for forward passes in bfloat16 on a CPU: large or strided depthwise convolutions get other gradients.

    oneDNN has no fast kernels for these (measured on two AMD cores, batches of 32: 1152 channels of 7 x 7 pixels and
    kernels of 5 x 5 take 0.7 ms forward and 50 ms back, and 6 ms back this way), and they took more than half of a
    training step of EfficientNet-Lite0. Nothing is changed in float32, for which it has them, or on other devices.
    Functions of PyTorch are intercepted, so that convolutions of any network are covered.
    """

    def __torch_function__(self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        """Compute `func(*args, **kwargs)`."""
        return _conv2d(*args, **(kwargs or {})) if func is torch.conv2d else func(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.conv2d`."""
    depthwise = groups == weight.shape[0] == input.shape[-3] > 1 and input.dim() == 4
    slow = weight.shape[3] > _WIDTH or max(_pair(stride)) > 1
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    bfloat16 = input.device.type == "cpu" and (autocast or input.dtype == weight.dtype == torch.bfloat16)
    if not (bfloat16 and depthwise and slow and _pair(dilation) == (1, 1)) or isinstance(padding, str):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    low = [None if given is None else given.to(torch.bfloat16) for given in (input, weight, bias)]
    return DepthwiseConv2d.apply(*low, _pair(stride), _pair(padding))


class DepthwiseConv2d(torch.autograd.Function):
    """A depthwise convolution whose gradients are made of fast ones."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        """`x` (B, C, H, W) and `weight` (C, 1, K, L) to (B, C, H', W')."""
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what is needed of `x`, `weight` and `bias`."""
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        return (
            _of_input(x, weight, gradient, ctx.stride, ctx.padding) if of_x else None,
            _of_weight(x, weight, gradient, ctx.stride, ctx.padding) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def _of_input(x: Tensor, weight: Tensor, gradient: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """The gradient of `x`: that of every `stride`-th row and column is a convolution with every `stride`-th weight."""
    (batch, channels, height, width), (down, right), (top, left) = x.shape, stride, padding
    padded = x.new_zeros(batch, height + 2 * top, width + 2 * left, channels).permute(0, 3, 1, 2)
    for row in range(down):
        for column in range(right):
            taps = weight[:, :, row::down, column::right].flip(2, 3)
            if not taps.numel():
                continue  # a stride longer than the kernel leaves pixels out
            margin = (taps.shape[2] - 1, taps.shape[3] - 1)
            found = functional.conv2d(gradient, taps, None, 1, margin, 1, channels)
            place = padded[:, :, row::down, column::right][..., : found.shape[2], : found.shape[3]]
            place.copy_(found[..., : place.shape[2], : place.shape[3]])
    return padded[..., top : top + height, left : left + width]


def _of_weight(
    x: Tensor, weight: Tensor, gradient: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """The gradient of `weight`, some columns of it at a time: each that of a narrow kernel on a shifted `x`."""
    # Of maps smaller than the kernel, only those whose rows are padded before are fast.
    before_rows, rows = (padding[0], 0) if x.shape[2] < weight.shape[2] else (0, padding[0])
    made: list[Tensor] = []
    for columns in weight.split(_WIDTH, dim=3):
        before = padding[1] - _WIDTH * len(made)
        width = (gradient.shape[3] - 1) * stride[1] + columns.shape[3]
        shifted = functional.pad(x, (before, width - x.shape[3] - before, before_rows, before_rows))
        found = torch.ops.aten.convolution_backward(
            gradient,
            shifted.contiguous(memory_format=torch.channels_last),
            columns.contiguous(),
            None,
            stride,
            (rows, 0),
            (1, 1),
            False,
            (0, 0),
            len(weight),
            (False, True, False),
        )
        made.append(found[1])
    return torch.cat(made, dim=3)


def _pair(values: int | Sequence[int]) -> tuple[int, int]:
    first, second = (values, values) if isinstance(values, int) else (values[0], values[-1])
    return first, second
