"""Results of a training, epoch by epoch."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Validation:
    """Scores of the validation split after an epoch, or before the first one (epoch 0).

    Attributes:
        epoch: number of the epoch.
        val_loss: mean over the images.
        val_metric: the metric of the settings, by which weights are chosen: of the validation images as they are, or
            with `select=robust` its mean over unchanged and changed ones.
        averaged: whether these are scores of the averaged weights, which were better than the raw ones.
        val_metric_clean: with `select=robust`, the metric of the images as they are; else None.
    """

    epoch: int
    val_loss: float
    val_metric: float
    averaged: bool = False
    val_metric_clean: float | None = None


@dataclass(frozen=True, kw_only=True)
class Epoch(Validation):
    """The results of one epoch.

    Losses are means over images; metrics are of whole splits, not means of batches. `lr` is the highest learning rate
    of all steps and parameters.
    """

    lr: float
    train_loss: float
    images_per_second: float
    epoch_seconds: float

    def values(self) -> dict[str, float]:
        """All values that there are but the number of the epoch, by name."""
        return {name: value for name, value in asdict(self).items() if name != "epoch" and value is not None}


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        start: the validation scores of the weights that training began with.
        history: the epochs.
        best: the epoch whose weights the suffix has now; `start` if none was better.
        stopped: "epochs" or "patience".
    """

    start: Validation
    history: list[Epoch]
    best: Validation
    stopped: str
