"""Losses that PyTorch does not have, by their full names: `_target_: cxr.training.losses.FocalLoss`."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FocalLoss(nn.Module):
    """Cross-entropy that counts what is already right less: `-(1 - p)^gamma log p` (Lin et al., 2017).

    Args:
        gamma: at least 0, which is the cross-entropy.
        weight: weights of the classes, shape (C,). As in `torch.nn.CrossEntropyLoss`, the mean is over the weights of
            the images where labels are classes, and over the images where they are probabilities.
        label_smoothing: share of each label that is spread over all classes.
    """

    weight: Tensor | None

    def __init__(self, gamma: float = 2.0, weight: Tensor | None = None, label_smoothing: float = 0.0):
        super().__init__()
        if gamma < 0:
            raise ValueError(f"expected a gamma of at least 0, got {gamma:g}")
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, C), and classes `int64` (B,) or their probabilities `float` (B, C), to a scalar."""
        count = logits.shape[1]
        shares = labels if labels.is_floating_point() else functional.one_hot(labels, count).to(logits.dtype)
        smooth = shares * (1 - self.label_smoothing) + self.label_smoothing / count
        smooth = smooth if self.weight is None else smooth * self.weight
        log_p = logits.log_softmax(1)
        # Where p is 1, the slope of a power below 1 is infinite, and times 0 not a number.
        missing = (1 - log_p.exp()).clamp_min(torch.finfo(log_p.dtype).eps)
        losses = -(smooth * missing**self.gamma * log_p).sum(1)
        if self.weight is None or labels.is_floating_point():
            return losses.mean()
        return losses.sum() / self.weight[labels].sum()
