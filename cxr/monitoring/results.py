"""What monitoring finds, as one tree of types: the content of `monitoring/report.json`.

`MonitoringReport` is the root. `docs/monitoring.schema.json` is its JSON schema; after a change, write it again:

    python -m cxr.monitoring.results > docs/monitoring.schema.json
"""

import json
from datetime import datetime
from typing import Literal

from pydantic import Field

from cxr.evaluation.facts import ReportModel, WholeReport
from cxr.evaluation.statistics import Estimate, Scores
from cxr.settings.monitoring import MonitorSettings


class Judged(ReportModel):
    """A distance from the reference. It raises an alarm if it is above both its limit and what chance can make."""

    value: float
    limit: float | None = Field(description="From `monitor.limits`; null: never an alarm.")
    chance: float = Field(
        description="What undisturbed images exceed so rarely that all comparisons together keep "
        "`monitor.false_alarms`."
    )

    @property
    def most(self) -> float:
        """The largest distance that raises no alarm, where there is a limit."""
        return max(self.limit or 0.0, self.chance)

    @property
    def alarm(self) -> bool:
        """Whether the distance raises an alarm."""
        return self.limit is not None and self.value > self.most


class ColumnDrift(ReportModel):
    """Drift of one number of the answers."""

    psi: Judged = Field(description="Population stability index.")
    ks: Judged = Field(description="Kolmogorov-Smirnov distance.")
    low: float = Field(description="5th percentile.")
    median: float
    high: float = Field(description="95th percentile.")


class ReferralShare(ReportModel):
    """Images that were referred, or could not be read, for one kind of reason."""

    images: int
    share: float = Field(description="Of all images that were read; of unreadable ones, of all images.")
    expected: float = Field(description="Share of the validation images, at the operating points of these answers.")
    rise: Judged = Field(description="Share minus the expected one.")


class ClassShare(ReportModel):
    """Estimated share of one true class."""

    share: Estimate
    expected: float = Field(description="Share of the validation images.")
    change: Judged = Field(description="Size of the difference.")


class LabelShift(ReportModel):
    """Shares of the true classes, by black-box shift estimation."""

    classes: dict[str, ClassShare] = Field(description="Empty if they cannot be estimated.")
    why_not: str = Field(default="", description="Why not.")


class TruthScores(ReportModel):
    """Scores of the answers whose truth is known."""

    images: int
    patients: int
    by_class: dict[str, int] = Field(description="Number of these images by true class.")
    scores: Scores
    alarms: list[str] = Field(
        description="Scores whose whole interval is below `monitor.limits.scores`, of those that are judged."
    )
    not_judged: dict[str, str] = Field(
        default={}, description="Why a score is not held against its limit, by score: too few patients have a truth."
    )


class Part(ReportModel):
    """The answers of one time, held against the reference.

    Where fewer than `monitor.window_images` images were read, only the share of unreadable ones is.
    """

    images: int = Field(description="Number of images that were read.")
    columns: dict[str, ColumnDrift] = Field(default={}, description="Empty if too few images were read.")
    labels: dict[str, int] = Field(
        default={}, description="Number of images by likeliest class; empty if too few were read."
    )
    label_psi: Judged | None = Field(
        default=None,
        description="Population stability index of the shares of the likeliest class; null if too few were read.",
    )
    referred: dict[str, ReferralShare] = Field(
        description="By kind of reason; `any` of them, and `unreadable` for images that were not read, which stands "
        "alone if too few were."
    )
    label_shift: LabelShift
    scores: TruthScores | None = Field(default=None, description="Null if no truth of an image that was read is known.")


class Window(ReportModel):
    """A day or a week."""

    begin: datetime = Field(description="Its beginning, UTC.")
    images: int = Field(description="Number of answers, unreadable images included.")
    part: Part | None = Field(
        description="Null if there are fewer images than `monitor.window_images`, unreadable images included."
    )


class MonitoredModel(ReportModel):
    """The version, and the reference that was made with it."""

    name: str = Field(description="Name of the registered model.")
    version: int
    classes: list[str] = Field(description="Class names, the negative one first.")
    finding: str = Field(description="What all classes but the first have in common.")
    images: int = Field(description="Number of validation images behind the reference.")
    patients: int = Field(description="Number of their patients.")
    out_of_fold: bool = Field(description="Whether single members of an ensemble of folds have answered these.")
    synthetic: bool = Field(description="Whether it was trained on generated phantoms.")
    condition: float | None = Field(
        description="Condition number of the confusion matrix of validation; null if a class has no images there."
    )


class InputRows(ReportModel):
    """The answers that were held against it."""

    source: str = Field(description="File or folder.")
    files: int
    answers: int
    first: datetime = Field(description="Time of the first answer, UTC.")
    last: datetime = Field(description="Time of the last answer, UTC.")
    others: dict[str, int] = Field(description="Number of answers of other versions, which are left out, by version.")
    outside: int = Field(
        description="Number of answers of this version outside the time asked for, in the files that were read."
    )
    points: dict[str, int] = Field(description="Number of answers by operating point.")
    truths: int | None = Field(default=None, description="Number of truths; null if none were given.")
    unmatched: int = Field(default=0, description="Number of truths of images that are not among the answers.")


class MonitoringReport(WholeReport):
    """All results of one monitoring: the content of `monitoring/report.json`."""

    # Raised when a field is renamed or removed, or changes its meaning.
    schema_version: Literal[1] = Field(default=1, description="Version of this schema.")
    created: datetime = Field(description="When the report was written, UTC.")
    seed: int = Field(description="Seed of the resamples.")
    model: MonitoredModel
    input: InputRows
    settings: MonitorSettings
    unit: Literal["day", "week"] = Field(description="Length of a window; a week begins on Monday, UTC.")
    comparisons: int = Field(description="Number of comparisons with the reference that can raise an alarm.")
    whole: Part = Field(description="All answers.")
    windows: list[Window] = Field(description="In the order of time; without those that have no answers.")
    alarms: list[str] = Field(description="One line for each limit that is passed.")
    runs: dict[str, str] = Field(description="ID of the MLflow run of each step that led here, this one included.")
    versions: dict[str, str] = Field(description="Version of each library that computes.")


if __name__ == "__main__":
    print(json.dumps(MonitoringReport.json_schema(), indent=2))
