"""The picture of a search shows each trial, the best so far and the importance of settings."""

import pytest

from cxr.search import plots
from cxr.search.study import Trial


def trial(number: int, state: str, score: float | None = None, **epochs: float) -> Trial:
    by_epoch = {int(name[1:]): value for name, value in epochs.items()}
    return Trial(key=str(number), number=number, state=state, values={}, score=score, epochs=by_epoch)


TRIALS = [
    trial(1, "complete", 0.4),
    trial(2, "failed"),
    trial(3, "pruned", e1=0.1, e2=0.2),
    trial(4, "complete", 0.3),
    trial(5, "complete", 0.6),
]


@pytest.mark.parametrize("maximise, best", [(True, [0.4, 0.4, 0.6]), (False, [0.4, 0.3, 0.3])])
def test_points_lie_where_the_trials_are(maximise, best):
    history, shares = plots.search(TRIALS, {"a": 0.7, "b": 0.3}, "F1", maximise=maximise).axes
    complete, pruned = (points.get_offsets().tolist() for points in history.collections)
    assert complete == [[1, 0.4], [4, 0.3], [5, 0.6]]
    assert pruned == [[3, 0.2]]
    assert list(history.lines[0].get_ydata()) == best
    assert [bar.get_width() for bar in shares.patches] == [0.3, 0.7]  # the largest on top


def test_too_few_trials_for_importance_are_told(tmp_path):
    drawn = plots.search(TRIALS[:1], {}, "F1", maximise=True)
    assert drawn.axes[1].texts[0].get_text() == "too few complete trials"
    drawn.savefig(tmp_path / "search.png")
    assert (tmp_path / "search.png").stat().st_size > 5000
