"""Early stopping: the best score so far, and when to stop waiting for a better one."""

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Stops after `patience` epochs without an improvement of more than `min_delta`."""

    patience: int
    min_delta: float
    higher_is_better: bool
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0

    def improved(self, score: float, epoch: int) -> bool:
        """Record the score of an epoch; True if it is the best so far."""
        gain = math.inf if self.best is None else self._gain(score, self.best)
        if gain > self.min_delta:
            self.best, self.best_epoch, self.waited = score, epoch, 0
            return True
        self.waited += 1
        return False

    def is_better(self, score: float, other: float) -> bool:
        """Whether `score` is better than `other`."""
        return self._gain(score, other) > 0

    def _gain(self, score: float, other: float) -> float:
        return (score - other) * (1 if self.higher_is_better else -1)

    @property
    def over(self) -> bool:
        """True once patience has run out."""
        return self.waited >= self.patience
