"""A version made of the bundle of another: the tags that lead back, its description, and the alias that it gets.

If the version it was made from is champion and both give the same answers, the new one takes its place, since a repair
of what nobody sees in an answer should be served. If answers differ, or were not compared, it becomes challenger, and
`promote` decides. If the other is not champion, no alias moves: whoever repackages an old version has not decided to
serve it.
"""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from cxr.errors import CxrError
from cxr.evaluation.results import GateCheck
from steps.registry.alike import Outcome
from steps.registry.gate import CHALLENGER, CHAMPION, PHANTOMS, Verdict
from steps.registry.identity import BUNDLE
from steps.runtime import runs

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# Tags of a version: the version it was repackaged from, and what became of the comparison with it.
SOURCE, COMPARED, FIRST = "cxr.repackaged_from", "cxr.compared", "cxr.compared_first"
NOT_COMPARED = "not compared"
_KEPT = ("cxr.manifest_digest", BUNDLE, "cxr.val_metric", "cxr.val_metric_name", PHANTOMS)
_NEEDED = (BUNDLE, "cxr.evaluate_run_id", "cxr.split_run_id")
_NOTE, _GATE = "**Repackaged**", "**Gate:**"
_TAG_LENGTH = 4500  # characters; a tag has room for 5,000
_DESCRIPTION_LENGTH = 4800


@dataclass(frozen=True)
class Compared:
    """What is known about a repackaged version beside the one it was made from.

    Attributes:
        outcome: of the comparison; None if there was none.
        packages: packages of the other version that are installed here at another version, which it answered with.
    """

    outcome: Outcome | None
    packages: list[str]

    def __str__(self) -> str:
        if self.outcome is None:
            return NOT_COMPARED
        if not self.packages:
            return str(self.outcome)
        names = ", ".join(self.packages[:5]) + (f" and {len(self.packages) - 5} more" if self.packages[5:] else "")
        return f"{self.outcome}; both ran with the packages installed here, which are others than it names: {names}"

    def tags(self) -> dict[str, str]:
        """The tags of the new version that say so."""
        told = {COMPARED: str(self)[:_TAG_LENGTH]}
        if self.outcome is not None and self.outcome.first:
            told[FIRST] = "\n".join(self.outcome.first)[:_TAG_LENGTH]
        return told


def check(version: "ModelVersion") -> None:
    """Raise `CxrError` unless this project has registered a version."""
    missing = [name for name in _NEEDED if name not in version.tags]
    if missing:
        raise CxrError(
            f"version {version.version} of {version.name} was not registered by `evaluate` of this project: it lacks "
            f"the tag {missing[0]}; only versions that lead back to their bundle can be repackaged"
        )


def tags(source: "ModelVersion", run_id: str) -> dict[str, str]:
    """Tags of a version repackaged from `source` by the run `run_id`, but for what is new about it."""
    kept = {name: source.tags[name] for name in _KEPT if name in source.tags}
    return runs.lineage(source.tags) | kept | {"cxr.repackage_run_id": run_id, SOURCE: str(source.version)}


def not_compared(made: "ModelVersion", source: "ModelVersion") -> bool:
    """Whether a version was made from `source` without being compared with it."""
    return made.tags.get(SOURCE) == str(source.version) and made.tags.get(COMPARED) == NOT_COMPARED


def judge(source: "ModelVersion", compared: Compared, champion: "ModelVersion | None") -> Verdict:
    """The alias of a version repackaged from `source`; no score decides."""
    number, outcome = source.version, compared.outcome
    same = outcome is not None and outcome.same
    words = f"{compared} (against version {number}, with today's code to serve it)"
    checks = [GateCheck(rule=f"the same answers as version {number}", passed=same, words=words)]
    if champion is None or int(champion.version) != int(number):
        return Verdict("", f"version {number}, which it was made from, is not champion; {words}", checks)
    if same:
        return Verdict(CHAMPION, words, checks)
    return Verdict(CHALLENGER, f"{words}; `mlflow run . -e promote` decides", checks)


def description(source: "ModelVersion", compared: Compared, verdict: str, day: date) -> str:
    """The model card of `source`, which has its scores, with what is new about the version made from it on `day`."""
    run_id = source.tags["cxr.evaluate_run_id"]
    note = (
        f"{_NOTE} from version {source.version} on {day}: the same weights with today's serving code and packages; "
        f"{compared}. The scores below are those of the evaluation of these weights, run {run_id}."
    )
    lines = (source.description or f"# {source.name}").splitlines()
    lines = [f"{_GATE} {verdict}" if line.startswith(_GATE) else line for line in lines]
    kept = [line for line in lines[1:] if not line.startswith(_NOTE)]
    while kept and not kept[0]:
        kept.pop(0)
    return "\n".join([lines[0], "", note, "", *kept])[:_DESCRIPTION_LENGTH]
