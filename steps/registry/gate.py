"""Who becomes champion. Rules on validation alone: the test part is for reporting, and decides nothing."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cxr.settings.schema import GateSettings

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("cxr.gate")
CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Verdict:
    """The alias that a version gets, and why; `checks` holds every rule with what was seen."""

    alias: str
    reason: str
    checks: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.alias}: {self.reason}"


# Compares with a champion on validation: a comparison, or words why there can be none.
Comparing = Callable[["ModelVersion"], "dict[str, Any] | str"]


def judge(rules: GateSettings, scores: dict[str, dict], champion: "ModelVersion | None", compare: Comparing) -> Verdict:
    """Hold validation `scores` (with intervals) against the rules and the present champion.

    A draw keeps the champion, and so does a champion that cannot be compared with.
    """
    checks = [_minimum(name, least, scores[name]["value"]) for name, least in rules.minimum if least is not None]
    lacking = [check["words"] for check in checks if not check["passed"]]
    if lacking:
        return Verdict(CHALLENGER, "; ".join(lacking), checks)
    if champion is None:
        return Verdict(CHAMPION, "there was none before, and every minimum is reached", checks)
    found = compare(champion)
    if isinstance(found, str):
        checks.append({"rule": "comparison with the champion", "passed": False, "words": found})
        return Verdict(CHALLENGER, found, checks)
    checks += _against(rules, found["differences"][rules.metric], champion.version)
    lacking = [check["words"] for check in checks if not check["passed"]]
    if lacking:
        return Verdict(CHALLENGER, "; ".join(lacking), checks)
    return Verdict(CHAMPION, checks[-2]["words"], checks)


def _minimum(name: str, least: float, value: float | None) -> dict[str, Any]:
    seen = "does not exist" if value is None else f"{value:.4f}"
    return {
        "rule": f"validation {name} at least {least:g}",
        "passed": value is not None and value >= least,
        "words": f"validation {name} {seen}, needed is {least:g}",
    }


def _against(rules: GateSettings, difference: dict[str, float | None], version: str) -> list[dict[str, Any]]:
    """Better than the champion, and surely not much worse."""
    name, value, low = rules.metric, difference["value"], difference["low"]
    if value is None:
        words = f"validation {name} does not exist for both"
        return [{"rule": f"validation {name} better than the champion's", "passed": False, "words": words}]
    interval = f"{value:+.4f} ({low:+.4f} to {difference['high']:+.4f})"
    return [
        {
            "rule": f"validation {name} better than the champion's",
            "passed": value > 0,
            "words": f"validation {name} {interval} against version {version}",
        },
        {
            "rule": f"not worse by more than {rules.margin:g} at the lower end of the interval",
            "passed": low >= -rules.margin,
            "words": f"validation {name} could be worse than version {version}'s by more than {rules.margin:g} "
            f"({interval})",
        },
    ]
