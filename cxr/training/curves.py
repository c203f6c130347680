"""Plots of the training curves."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr.common import plotting
from cxr.training.loop import Epoch


def training_curves(history: list[Epoch], best_epoch: int, metric: str) -> Figure:
    """Losses and the validation metric by epoch; the epoch whose weights are kept is marked."""
    drawn, (losses, scores) = plotting.figure(9, 3.6, 1, 2)
    epochs = [record.epoch for record in history]
    losses.plot(epochs, [r.train_loss for r in history], color=plotting.BLUE, marker="o", ms=3, label="training")
    losses.plot(epochs, [r.val_loss for r in history], color=plotting.ORANGE, marker="s", ms=3, label="validation")
    losses.set(title="Loss", xlabel="epoch", ylabel="mean loss per image")
    scores.plot(epochs, [r.val_metric for r in history], color=plotting.ORANGE, marker="s", ms=3, label="validation")
    best = history[best_epoch - 1]
    scores.set(title=f"{metric}: {best.val_metric:.4f} in epoch {best_epoch}, kept", xlabel="epoch", ylabel=metric)
    for axes in (losses, scores):
        axes.axvline(best_epoch, color=plotting.GREY, lw=1, ls="--", label="kept")
        axes.set_xlim(0.5, len(history) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return drawn
