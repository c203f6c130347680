"""Layers that see more than one image, or draw random numbers, on one process's rows of a batch.

Within `WholeBatch`, batch norms that train take mean and variance over the rows of all processes, as
`torch.nn.SyncBatchNorm` does for cards alone, and dropout and stochastic depth draw for the whole batch and take the
numbers of the own rows. A network then computes in several processes what it computes in one, up to rounding. It is
done by intercepting functions of PyTorch, so that any network's layers are covered, timm's included.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from cxr.common.share import Share

_DROPOUTS = (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d)


class WholeBatch(TorchFunctionMode):
    """A context for the forward pass of one process's rows of a batch.

    Args:
        share: which rows are its own.
        count: images of the whole batch.
        total: sums a tensor over all processes, in place.
    """

    def __init__(self, share: Share, count: int, total: Callable[[Tensor], Tensor]):
        super().__init__()
        self.rows, self.count, self.total = share.rows(count), count, total

    def __torch_function__(self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        """Compute `func(*args, **kwargs)`, as on the whole batch."""
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func in _DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        if func is Tensor.bernoulli_:
            return self._bernoulli(*args, **kwargs)
        return func(*args, **kwargs)

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return functional.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
        normal, mean, var, count = _Standardised.apply(x, eps, self.total)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
        if weight is not None:
            normal = normal * _by_channel(weight, x)
        if bias is not None:
            normal = normal + _by_channel(bias, x)
        return normal.to(x.dtype)

    def _dropout(
        self, func: Callable[..., Tensor], x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or not p:
            return func(x, p, training, inplace)
        # A mask of whole channels needs one value of each.
        shape = x.shape[1:] if func is functional.dropout else (x.shape[1], *(1 for _ in x.shape[2:]))
        ones = torch.ones(self.count, *shape, dtype=x.dtype, device=x.device)
        if ones.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):  # the order of the draws
            ones = ones.contiguous(memory_format=torch.channels_last)
        return x * func(ones, p, True, False)[self.rows]

    def _bernoulli(self, x: Tensor, p: Any = 0.5, *, generator: torch.Generator | None = None) -> Tensor:
        own = self.rows.stop - self.rows.start
        if not x.dim() or len(x) != own or isinstance(p, Tensor):
            return x.bernoulli_(p, generator=generator)
        whole = torch.empty(self.count, *x.shape[1:], dtype=x.dtype, device=x.device)
        return x.copy_(whole.bernoulli_(p, generator=generator)[self.rows])


class _Standardised(torch.autograd.Function):
    """`(x - mean) / sqrt(var + eps)` by channel, with mean and variance over all processes, at least in float32.

    S. Ioffe and C. Szegedy, "Batch Normalization", 2015, section 3, has the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, total: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`x` (B, C, ...) to values of its shape, their mean (C,) and variance (C,) before, and how many there are."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        own = wide.new_tensor([x.numel() // x.shape[1]])
        sums = total(torch.cat([wide.sum(_others(x)), own]))
        count = sums[-1].clone()
        mean = sums[:-1] / count
        centred = wide - _by_channel(mean, x)
        var = total(centred.square().sum(_others(x))) / count
        scale = (var + eps).rsqrt()
        normal = centred * _by_channel(scale, x)
        ctx.total = total
        ctx.save_for_backward(normal, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        return normal, mean, var, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the own rows; every value takes part in mean and variance, those of other processes too."""
        normal, scale, count = ctx.saved_tensors
        sums = torch.stack([gradient.sum(_others(normal)), (gradient * normal).sum(_others(normal))])
        by_mean, by_var = ctx.total(sums) / count
        centred = gradient - _by_channel(by_mean, normal) - normal * _by_channel(by_var, normal)
        return centred * _by_channel(scale, normal), None, None


def _others(x: Tensor) -> list[int]:
    """All axes but that of the channels."""
    return [0, *range(2, x.dim())]


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values (C,) in a shape that meets `x` (B, C, ...)."""
    return values.view(1, -1, *(1 for _ in range(x.dim() - 2)))
