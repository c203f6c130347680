"""The registry gate: rules that a new version must pass to become champion, on the validation split alone.

The test split is reported and decides nothing.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cxr.evaluation.results import ChampionComparison, Comparison, GateCheck, GateResult, NoComparison, Scores
from cxr.evaluation.scores import named
from cxr.settings.schema import GateSettings
from steps.registry.identity import BUNDLE

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("cxr.gate")
CHAMPION, CHALLENGER = "champion", "challenger"
PHANTOMS = "cxr.synthetic"  # tag of a version: `true` if it was trained on drawn phantoms


@dataclass(frozen=True)
class Verdict:
    """The alias that a version gets, if any, the reason, and every rule that was checked."""

    alias: str
    reason: str
    checks: list[GateCheck] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.alias or 'no alias'}: {self.reason}"

    def result(self) -> GateResult:
        """The verdict as the report shows it."""
        return GateResult(verdict=str(self), checks=self.checks)


# Compares the new version with a champion.
Compare = Callable[["ModelVersion"], ChampionComparison | NoComparison]


def judge(
    rules: GateSettings,
    scores: Scores,
    champion: "ModelVersion | None",
    compare: Compare,
    new: dict[str, str],
    finding: str,
) -> Verdict:
    """Check the validation `scores` of a new version against the minimums and the present champion.

    The champion stays if the two score the same, and if they cannot be compared. One of another split is compared on
    the validation images that it has not seen (see `steps.registry.champion`). Of models of which only one was trained
    on X-rays, not on phantoms, that one wins: their scores say nothing about each other. The champion's own weights,
    served by other code or with other settings, take its place: otherwise a repair would never be served.

    Args:
        rules: minimums, and what counts as better.
        scores: of the new version, by name.
        champion: the present champion, if there is one.
        compare: compares the new version with it.
        new: tags of the new version.
        finding: what all classes but the first have in common.
    """
    minimums = {named(score, finding): least for score, least in rules.minimum if least is not None}
    checks = [_minimum(name, least, scores[name].value) for name, least in minimums.items()]
    failed = [check.words for check in checks if not check.passed]
    if failed:
        return Verdict(CHALLENGER, "; ".join(failed), checks)
    if champion is None:
        return Verdict(CHAMPION, "there was none before, and every minimum is reached", checks)
    phantoms = trained_on_phantoms(new)
    if phantoms != trained_on_phantoms(champion.tags):
        checks.append(_x_rays(phantoms, champion.version))
        return Verdict(CHALLENGER if phantoms else CHAMPION, checks[-1].words, checks)
    if new[BUNDLE] == champion.tags.get(BUNDLE):
        words = f"the weights of version {champion.version}, with other code or settings to serve them"
        return Verdict(CHAMPION, words, checks)
    outcome = compare(champion)
    if isinstance(outcome, NoComparison):
        checks.append(GateCheck(rule="comparison with the champion", passed=False, words=outcome.why_not))
        return Verdict(CHALLENGER, outcome.why_not, checks)
    if outcome.validation.left_out is not None:
        checks.append(_unseen(rules, outcome.validation, outcome.version))
    checks += _against(rules, named(rules.metric, finding), outcome.validation, outcome.version)
    failed = [check.words for check in checks if not check.passed]
    if failed:
        return Verdict(CHALLENGER, "; ".join(failed), checks)
    return Verdict(CHAMPION, checks[-2].words, checks)


def trained_on_phantoms(tags: dict[str, str]) -> bool:
    """Whether a version with these tags was trained on phantoms; one that does not say was trained on X-rays."""
    return tags.get(PHANTOMS) == "true"


def _x_rays(phantoms: bool, champion: int | str) -> GateCheck:
    """The rule on two versions of which one was trained on phantoms, the new one if `phantoms`."""
    kinds = ("phantoms", "X-rays") if phantoms else ("X-rays", "phantoms")
    return GateCheck(
        rule="trained on X-rays, if the champion was",
        passed=not phantoms,
        words=f"trained on {kinds[0]}, version {champion} on {kinds[1]}",
    )


def _minimum(name: str, least: float, value: float | None) -> GateCheck:
    seen = "is undefined" if value is None else f"{value:.4f}"
    return GateCheck(
        rule=f"validation {name} at least {least:g}",
        passed=value is not None and value >= least,
        words=f"validation {name} {seen}, the minimum is {least:g}",
    )


def _unseen(rules: GateSettings, comparison: Comparison, version: int) -> GateCheck:
    """The rule on a champion of another split, which holds wherever there is a comparison."""
    return GateCheck(
        rule=f"at least {rules.least_images} validation images that a champion of another split has not seen",
        passed=True,
        words=f"compared on {_counted(comparison)}; version {version} has seen the others, copies of them or their "
        "patients",
    )


def _counted(comparison: Comparison) -> str:
    """`130 of 240 validation images`, of a comparison with a champion of another split."""
    images, left_out = comparison.images or 0, comparison.left_out or 0
    return f"{images} of {images + left_out} validation images"


def _against(rules: GateSettings, name: str, comparison: Comparison, version: int) -> list[GateCheck]:
    """The rules on the champion: better than it, and unlikely to be worse by more than the margin."""
    difference = comparison.differences[name]
    on = f", on {_counted(comparison)}" if comparison.left_out is not None else ""
    better = f"validation {name} better than the champion's"
    if difference.value is None or difference.low is None or difference.high is None:
        return [GateCheck(rule=better, passed=False, words=f"validation {name} is undefined")]
    interval = f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    within = difference.low >= -rules.margin
    could_be = "is not worse" if within else "could be worse"
    return [
        GateCheck(
            rule=better,
            passed=difference.value > 0,
            words=f"validation {name} {interval} against version {version}{on}",
        ),
        GateCheck(
            rule=f"not worse by more than {rules.margin:g} at the lower end of the interval",
            passed=within,
            words=f"validation {name} {could_be} than version {version}'s by more than {rules.margin:g} "
            f"({interval}{on})",
        ),
    ]
