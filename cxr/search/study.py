"""A study: what earlier trials have shown, and what to try next, by Optuna's sampler and pruner.

It lives in memory. What is kept of trials, and where, is the business of its user, who tells it what is known.
"""

import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from cxr.errors import CxrError
from cxr.settings.search import Choices, Range, SearchSettings

State = Literal["running", "complete", "pruned", "failed", "interrupted"]
_LEAST_FOR_IMPORTANCE = 10  # complete trials: with fewer, a tenth of them is none


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is known of a trial.

    Attributes:
        key: what its user knows it by.
        number: its number in the study, from 1; two searches that share a study can give one twice.
        state: `failed` if its training failed, `interrupted` if it was given up for other reasons.
        values: the settings that it tries, by full name.
        score: the best validation metric of its training; None unless it is complete.
        epochs: the validation metric after each epoch, from 1 on.
    """

    key: str
    number: int
    state: State
    values: dict[str, Any]
    score: float | None
    epochs: dict[int, float]


class Study:
    """Proposes trials (TPE) and ends bad ones early (median rule).

    Args:
        settings: space and budget.
        maximise: whether a higher score is better.
        seed: of what is drawn; searches that share a study need different ones.

    Raises:
        CxrError: Optuna is not installed.
    """

    def __init__(self, settings: SearchSettings, *, maximise: bool, seed: int):
        self._optuna = optuna = library()
        self.maximise = maximise
        self._distributions = {name: _distribution(optuna, domain) for name, domain in settings.space.items()}
        self._study = optuna.create_study(
            direction=direction(maximise), sampler=sampler(settings, seed), pruner=pruner(settings)
        )
        self._known: set[str] = set()
        self._asked: dict[str, Any] = {}

    def learn(self, trial: Trial) -> None:
        """Take note of a finished trial of an earlier or another search; one that is known already changes nothing."""
        if trial.key in self._known or trial.state == "running":
            return
        self._known.add(trial.key)
        states = self._optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "pruned": states.PRUNED}.get(trial.state, states.FAIL)
        frozen = self._optuna.trial.create_trial(
            state=state,
            value=trial.score if state == states.COMPLETE else None,
            params=trial.values,
            distributions=self._distributions,
            intermediate_values=trial.epochs,
        )
        self._study.add_trial(frozen)

    def ask(self) -> "Proposal":
        """What to try next."""
        return Proposal(self._study.ask(self._distributions))

    def begin(self, key: str, proposal: "Proposal") -> None:
        """Give a proposal the key that its trial is known by from now on."""
        self._known.add(key)
        self._asked[key] = proposal.trial

    def report(self, key: str, epoch: int, score: float) -> bool:
        """Take note of a running trial's validation metric after `epoch`; returns whether to end it for its results."""
        trial = self._asked[key]
        trial.report(score, epoch)
        return bool(trial.should_prune())

    def end(self, key: str, state: State, score: float | None = None) -> None:
        """Take note of how a running trial ended."""
        states = self._optuna.trial.TrialState
        told = {"complete": states.COMPLETE, "pruned": states.PRUNED}.get(state, states.FAIL)
        self._study.tell(self._asked.pop(key), score if state == "complete" else None, state=told)

    def ranked(self, trials: list[Trial]) -> list[Trial]:
        """The complete trials, best first; of equal ones, the earlier."""
        complete = [trial for trial in trials if trial.score is not None]
        return sorted(complete, key=lambda trial: trial.score or 0.0, reverse=self.maximise)

    def importance(self) -> dict[str, float]:
        """Share of each setting in what makes the best tenth of the trials (PED-ANOVA), largest first.

        Empty if there are too few complete trials, or none better than the others.
        """
        states = [trial.state.name for trial in self._study.trials]
        if states.count("COMPLETE") < _LEAST_FOR_IMPORTANCE:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that no trial stands out; the shares say so
            found = self._optuna.importance.get_param_importances(self._study)
        return dict(sorted(found.items(), key=lambda item: -item[1])) if any(found.values()) else {}


@dataclass(frozen=True)
class Proposal:
    """A trial of Optuna that has not begun."""

    trial: Any

    @property
    def values(self) -> dict[str, Any]:
        """The settings to try, by full name."""
        return dict(self.trial.params)


def counted(number: int) -> str:
    """`1 trial`, `3 trials`."""
    return f"{number} trial" if number == 1 else f"{number} trials"


def library() -> ModuleType:
    """Optuna, with its messages sent to the logs of this process."""
    try:
        import optuna
    except ImportError:
        raise CxrError("search needs Optuna: pip install -r requirements-search.txt") from None
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    return optuna


def direction(maximise: bool) -> str:
    """What Optuna calls it whether a higher score is better."""
    return "maximize" if maximise else "minimize"


def sampler(settings: SearchSettings, seed: int) -> Any:
    """What proposes trials: a tree of Parzen estimators, after some at random."""
    return library().samplers.TPESampler(n_startup_trials=settings.startup_trials, seed=seed % 2**32)


def pruner(settings: SearchSettings) -> Any:
    """What ends trials early: the median of the others, or nothing."""
    pruners = library().pruners
    if settings.prune_after is None:
        return pruners.NopPruner()
    return pruners.MedianPruner(settings.startup_trials, n_warmup_steps=settings.prune_after)


def suggest(trial: Any, name: str, domain: Range | Choices) -> Any:
    """What a trial of Optuna should try of a setting."""
    if isinstance(domain, Choices):
        return trial.suggest_categorical(name, domain.choices)
    if isinstance(domain.low, int) and isinstance(domain.high, int):
        return trial.suggest_int(name, domain.low, domain.high, log=domain.log)
    return trial.suggest_float(name, domain.low, domain.high, log=domain.log)


def _distribution(optuna: ModuleType, domain: Range | Choices) -> Any:
    kinds = optuna.distributions
    if isinstance(domain, Choices):
        return kinds.CategoricalDistribution(domain.choices)
    if isinstance(domain.low, int) and isinstance(domain.high, int):
        return kinds.IntDistribution(domain.low, domain.high, log=domain.log)
    return kinds.FloatDistribution(float(domain.low), float(domain.high), log=domain.log)
