"""Results of a training, epoch by epoch."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Validation:
    """Scores of the validation split after an epoch, or before the first one (epoch 0).

    Attributes:
        epoch: number of the epoch.
        val_loss: mean over the images.
        val_metric: the metric of the settings.
        averaged: whether these are scores of the averaged weights, which were better than the raw ones.
    """

    epoch: int
    val_loss: float
    val_metric: float
    averaged: bool = False


@dataclass(frozen=True, kw_only=True)
class Epoch(Validation):
    """The results of one epoch. Losses are means over images; the metric is that of the whole validation split."""

    lr: float
    train_loss: float
    images_per_second: float
    epoch_seconds: float

    def values(self) -> dict[str, float]:
        """All values but the number of the epoch, by name."""
        return {name: value for name, value in asdict(self).items() if name != "epoch"}


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
