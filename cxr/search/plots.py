"""The picture of a search: how the trials went, and which settings mattered."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr.common import plotting
from cxr.search.study import Trial, counted

_SHOWN = 10  # settings


def search(trials: list[Trial], importance: dict[str, float], metric: str, *, maximise: bool) -> Figure:
    """Scores of the trials with the best so far, and the importance of the settings.

    Args:
        trials: in the order in which they began.
        importance: share of each setting, largest first; empty if too few trials tell.
        metric: its name.
        maximise: whether a higher score is better.
    """
    drawn, (history, shares) = plotting.figure(11, 4, 1, 2, width_ratios=(3, 2))
    complete = [(place, trial.score) for place, trial in enumerate(trials, 1) if trial.score is not None]
    pruned = [
        (place, trial.epochs[max(trial.epochs)])
        for place, trial in enumerate(trials, 1)
        if trial.state == "pruned" and trial.epochs
    ]
    history.scatter(*zip(*complete, strict=True), s=18, color=plotting.BLUE, label="complete")
    if pruned:
        history.scatter(*zip(*pruned, strict=True), s=18, color=plotting.GREY, marker="x", label="pruned, last epoch")
    best = [(max if maximise else min)(score for _, score in complete[: place + 1]) for place in range(len(complete))]
    history.step(
        [place for place, _ in complete], best, color=plotting.ORANGE, where="post", label="best so far", zorder=0
    )
    history.set(title=counted(len(trials)), xlabel="trial", ylabel=f"validation {metric}")
    history.xaxis.set_major_locator(MaxNLocator(integer=True))
    history.legend()
    shown = list(importance.items())[:_SHOWN][::-1]
    shares.barh([name for name, _ in shown], [share for _, share in shown], color=plotting.BLUE)
    shares.set(title="Importance (PED-ANOVA)", xlabel="share")
    if not shown:
        shares.text(0.5, 0.5, "too few complete trials", ha="center", va="center", transform=shares.transAxes)
        shares.set(xticks=[], yticks=[])
    return drawn
