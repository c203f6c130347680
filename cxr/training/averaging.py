"""Averaged weights: an exponential moving average of the weights and buffers of a training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_WARMUP = 10  # steps; the decay rises as (1 + n) / (10 + n), so that the first average is not that of the start


def averaged(suffix: nn.Module, decay: float) -> AveragedModel | None:
    """The moving average of `suffix` with `decay` per step, statistics of batch norms included; None for 0."""
    if not decay:
        return None

    def average(means: Sequence[Tensor], values: Sequence[Tensor], steps: Tensor | int) -> None:
        count = int(steps)
        weight = 1 - min(decay, (1 + count) / (_WARMUP + count))
        floats = [(mean, value) for mean, value in zip(means, values, strict=True) if mean.is_floating_point()]
        if floats:
            torch._foreach_lerp_([mean for mean, _ in floats], [value for _, value in floats], weight)
        counts = [(mean, value) for mean, value in zip(means, values, strict=True) if not mean.is_floating_point()]
        if counts:  # of batches, in batch norms
            torch._foreach_copy_([mean for mean, _ in counts], [value for _, value in counts])

    return AveragedModel(suffix, multi_avg_fn=average, use_buffers=True)
