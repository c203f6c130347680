"""Averaged weights: an exponential moving average of the weights and buffers of a training."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_WARMUP = 10  # steps; the decay rises as (1 + n) / (10 + n), so that the first average is not that of the start


class MovingAverage(AveragedModel):
    """The moving average of a suffix with `decay` per step, statistics of batch norms included."""

    def __init__(self, suffix: nn.Module, decay: float):
        super().__init__(suffix, multi_avg_fn=self._average, use_buffers=True)
        self.decay, self._weight = decay, 1.0

    def update_parameters(self, model: nn.Module) -> None:
        """Take the weights of `model` into the average."""
        # The number of steps is on the CPU here; `_average` is given a copy on the device, whose reading would wait
        # for a GPU in every step.
        count = int(self.n_averaged)
        self._weight = 1 - min(self.decay, (1 + count) / (_WARMUP + count))
        super().update_parameters(model)

    def _average(self, means: Sequence[Tensor], values: Sequence[Tensor], _: Tensor | int) -> None:
        floats = [(mean, value) for mean, value in zip(means, values, strict=True) if mean.is_floating_point()]
        if floats:
            torch._foreach_lerp_([mean for mean, _ in floats], [value for _, value in floats], self._weight)
        counts = [(mean, value) for mean, value in zip(means, values, strict=True) if not mean.is_floating_point()]
        if counts:  # of batches, in batch norms
            torch._foreach_copy_([mean for mean, _ in counts], [value for _, value in counts])


def averaged(suffix: nn.Module, decay: float) -> MovingAverage | None:
    """The moving average of `suffix` with `decay` per step; None for 0."""
    return MovingAverage(suffix, decay) if decay else None
