"""A study proposes trials within its space, learns from earlier ones, and ends those that fall behind."""

import sys

import pytest

from cxr.errors import CxrError
from cxr.search.study import Study, Trial, counted
from tests.helpers import settings_with

LR = "finetune.optimizer.lr"
SPACE = (
    "{finetune.optimizer.lr: {low: 1e-5, high: 1e-1, log: true}, finetune.epochs: {low: 2, high: 9}, "
    "finetune.ema: {choices: [0, 0.9]}}"
)


def study(*, maximise: bool = True, seed: int = 0, **given: object) -> Study:
    settings = {"search.space": SPACE, **{f"search.{name}": value for name, value in given.items()}}
    return Study(settings_with(settings).search, maximise=maximise, seed=seed)


def trial(number: int, score: float | None = None, state: str = "complete", lr: float = 0.001, **more: object) -> Trial:
    values = {LR: lr, "finetune.epochs": 3, "finetune.ema": 0}
    return Trial(key=str(number), number=number, state=state, values=values, score=score, **{"epochs": {}, **more})


def test_proposals_lie_in_the_space():
    one = study()
    for _ in range(30):
        values = one.ask().values
        assert list(values) == [LR, "finetune.epochs", "finetune.ema"]
        assert 1e-5 <= values[LR] <= 1e-1
        assert values["finetune.epochs"] in range(2, 10)
        assert values["finetune.ema"] in (0, 0.9)


def test_the_seed_decides_what_is_drawn():
    assert study(seed=3).ask().values == study(seed=3).ask().values
    assert study(seed=3).ask().values != study(seed=4).ask().values
    assert study(seed=2**32 - 1 + 4).ask().values == study(seed=3).ask().values


def test_earlier_trials_lead_to_where_scores_are_high():
    """With scores that fall with the distance from lr=1e-2, proposals come closer than random ones."""
    one = study(startup_trials=5)
    for number in range(40):
        lr = 10 ** (-5 + number / 10)
        one.learn(trial(number, -abs(number - 30), lr=lr))
    near = sum(1e-3 <= one.ask().values[LR] <= 1e-1 for _ in range(20))
    assert near >= 16  # at random, half of them


def test_a_trial_is_learnt_once_and_running_ones_are_not():
    one = study()
    for _ in range(2):
        one.learn(trial(1, 0.5))
        one.learn(trial(2, state="failed"))
        one.learn(trial(3, state="interrupted"))
        one.learn(trial(4, state="pruned", epochs={1: 0.2}))
        one.learn(trial(5, state="running"))
    assert [t.state.name for t in one._study.trials] == ["COMPLETE", "FAIL", "FAIL", "PRUNED"]


def test_a_trial_that_falls_behind_the_median_is_to_end():
    one = study(startup_trials=2, prune_after=2)
    for number, score in enumerate((0.8, 0.9, 0.7), start=1):
        one.learn(trial(number, score, epochs={1: score, 2: score, 3: score}))
    one.begin("bad", one.ask())
    assert [one.report("bad", epoch, 0.1) for epoch in (1, 2)] == [False, True]
    one.end("bad", "pruned")
    one.begin("good", one.ask())
    assert [one.report("good", epoch, 0.95) for epoch in (1, 2, 3)] == [False, False, False]
    one.end("good", "complete", 0.95)
    assert [t.state.name for t in one._study.trials[3:]] == ["PRUNED", "COMPLETE"]


def test_a_loss_falls_behind_when_it_is_higher():
    one = study(maximise=False, startup_trials=1, prune_after=1)
    one.learn(trial(1, 0.3, epochs={1: 0.3}))
    one.begin("a", one.ask())
    assert one.report("a", 1, 0.9)


def test_nothing_ends_early_without_pruning_or_before_enough_trials():
    for one in (study(prune_after="null", startup_trials=1), study(startup_trials=4)):
        for number in (1, 2, 3):
            one.learn(trial(number, 0.9, epochs={2: 0.9}))
        one.begin("bad", one.ask())
        assert not one.report("bad", 2, 0.1)


def test_a_failed_trial_ends_without_a_score():
    one = study()
    one.begin("a", one.ask())
    one.end("a", "failed")
    assert one._study.trials[0].state.name == "FAIL"


@pytest.mark.parametrize("maximise, order", [(True, [2, 3, 1]), (False, [1, 2, 3])])
def test_trials_are_ranked_and_of_equal_ones_the_earlier_is_first(maximise, order):
    trials = [trial(1, 0.1), trial(2, 0.5), trial(3, 0.5), trial(4, state="pruned")]
    assert [t.number for t in study(maximise=maximise).ranked(trials)] == order


def test_the_setting_that_decides_is_the_important_one():
    one = study()
    for number in range(30):
        assert bool(one.importance()) == (number >= 10)
        one.learn(trial(number, number / 30, lr=10 ** (-5 + number / 10)))
    shares = one.importance()
    assert next(iter(shares)) == LR
    assert shares[LR] > 0.7 and sum(shares.values()) == pytest.approx(1)


def test_without_optuna_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CxrError, match="search needs Optuna: pip install -r requirements-search.txt"):
        study()


def test_trials_are_counted_in_words():
    assert [counted(number) for number in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
