"""Plots of the training curves."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr.common import plotting
from cxr.training.results import TrainingResult


def training_curves(result: TrainingResult, metric: str) -> Figure:
    """Losses and the validation metric by epoch, from the start (epoch 0) on; the kept weights are marked."""
    drawn, (losses, scores) = plotting.figure(9, 3.6, 1, 2)
    validated = [result.start, *result.history]
    train_loss = [record.train_loss for record in result.history]
    epochs = [record.epoch for record in validated]
    losses.plot(epochs[1:], train_loss, color=plotting.BLUE, marker="o", ms=3, label="training")
    losses.plot(epochs, [v.val_loss for v in validated], color=plotting.ORANGE, marker="s", ms=3, label="validation")
    losses.set(title="Loss", xlabel="epoch", ylabel="mean loss per image")
    scores.plot(epochs, [v.val_metric for v in validated], color=plotting.ORANGE, marker="s", ms=3, label="validation")
    if result.start.val_metric_clean is not None:
        clean = [v.val_metric_clean for v in validated]
        scores.plot(epochs, clean, color=plotting.BLUE, marker="o", ms=3, label="validation, unchanged images")
    best = result.best
    kept = f"in epoch {best.epoch}, kept" if best.epoch else "at the start, kept"
    scores.set(title=f"{metric}: {best.val_metric:.4f} {kept}", xlabel="epoch", ylabel=metric)
    for axes in (losses, scores):
        axes.axvline(best.epoch, color=plotting.GREY, lw=1, ls="--", label="kept")
        axes.set_xlim(-0.5, len(result.history) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return drawn
