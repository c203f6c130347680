"""The results of a validation on another set as one tree of types: the content of `validation/report.json`.

`ValidationReport` is the root. `docs/validation.schema.json` is its JSON schema; after a change, write it again:

    python -m cxr.evaluation.validation_results > docs/validation.schema.json
"""

import json
from datetime import datetime
from typing import Literal

from pydantic import Field

from cxr.evaluation.facts import ReportModel, SourceFacts, UnreadableFile, WholeReport
from cxr.evaluation.probes import MapSanity, ShortcutTest
from cxr.evaluation.results import Mistakes, OperatingPoint, Subgroup
from cxr.evaluation.statistics import (
    Answered,
    CalibrationErrors,
    DecisionCurve,
    Estimate,
    OperatingBand,
    Recalibration,
    RiskCoverage,
    Scores,
)


class ValidatedModel(ReportModel):
    """The registered version that was validated, frozen as it is served."""

    name: str = Field(description="Name of the registered model.")
    version: int
    network: str = Field(description="Architecture; empty if the version does not say.")
    classes: list[str] = Field(description="Class names of the model, the negative one first.")
    temperature: float = Field(description="Logits are divided by it before the softmax.")
    operating_point: str = Field(description="The operating point that the model uses unless a request names another.")
    operating_points: dict[str, float] = Field(description="Threshold on the probability of the finding by name.")
    bundle_digest: str = Field(description="SHA-256 of all that decides the answers of the bundle.")
    synthetic: bool = Field(description="Whether it was trained on generated phantoms.")


class FlowStep(ReportModel):
    """A number of images on the way from the files to the scores."""

    what: str = Field(description="What became of these images.")
    images: int


class Overlap(ReportModel):
    """Images of the model's own training and validation that stand in the set; they are left out."""

    checked: bool = Field(description="False if the split of the version has no fingerprints to compare with.")
    why_not: str = Field(default="", description="Why it could not be checked.")
    compared: int = Field(default=0, description="Number of training and validation images of the model.")
    reasons: dict[str, int] = Field(default_factory=dict, description="Number of images left out by reason.")
    listed: list[UnreadableFile] = Field(default_factory=list, description="The first 200 of them, with the reason.")
    same_identifier: int = Field(
        default=0,
        description="Number of scored images whose patient is called as one of training; they are left out only where "
        "both sets are known to name patients alike.",
    )
    own_test: int = Field(default=0, description="Number of scored images that stand in the model's own test split.")


class SetFacts(ReportModel):
    """The labelled set."""

    source: SourceFacts
    digest: str = Field(description="SHA-256 of paths, labels, patients and content of all readable images.")
    classes: list[str] = Field(description="Class names of the set, the negative one first.")
    finding: str = Field(description="What all classes but the first have in common.")
    mapping: dict[str, str] = Field(description="Class of the set that each class of the model counts as.")
    by_class: dict[str, int] = Field(description="Number of scored images by true class.")
    flow: list[FlowStep] = Field(description="From the images found to those that are scored.")
    unreadable: list[UnreadableFile]
    refused: list[UnreadableFile] = Field(description="Readable images that the served model refuses, and why.")
    overlap: Overlap


class Distances(ReportModel):
    """How far images lie from the training images, by the features of the network."""

    limit: float = Field(description="Distance above which the model refers an image.")
    quantiles: list[float] = Field(description="Distances of the set at evenly spaced quantiles from 0 to 1.")
    validation: list[float] | None = Field(description="The same of the model's validation images; null if not kept.")
    beyond: float = Field(description="Share of the images beyond the limit.")


class ImageScores(ReportModel):
    """Scores on some of the images of the set."""

    images: int
    patients: int
    by_class: dict[str, int] = Field(description="Number of images by true class.")
    scores: Scores
    operating_points: list[OperatingPoint] = Field(description="At the frozen thresholds of the model.")
    calibration: CalibrationErrors = Field(description="At the frozen temperature.")
    finding: Recalibration = Field(description="Calibration of the finding as yes or no.")
    undefined: list[str] = Field(description="Names of scores that these images cannot define.")


class SideBySide(ReportModel):
    """One score on the model's own test split and on the set."""

    internal: Estimate
    external: Estimate
    difference: Estimate = Field(description="External minus internal; independent bootstraps.")


class Internal(ReportModel):
    """The model's own test split, from the evaluation that registered it."""

    run_id: str = Field(description="MLflow run of that evaluation.")
    images: int
    patients: int
    scores: dict[str, SideBySide] = Field(description="By the name of the score or of the measure of calibration.")


class NoInternal(ReportModel):
    """Why there are no scores of the model's own test split."""

    why_not: str


class ValidationReport(WholeReport):
    """All results of one validation: the content of `validation/report.json`."""

    # Raised when a field is renamed or removed, or changes its meaning.
    schema_version: Literal[1] = Field(default=1, description="Version of this schema.")
    created: datetime = Field(description="When the report was written, UTC.")
    resamples: int = Field(description="Number of bootstrap resamples of patients behind the intervals.")
    seed: int = Field(description="Seed of the resamples.")
    model: ValidatedModel
    data: SetFacts
    runs: dict[str, str] = Field(description="ID of the MLflow run of each step that led here, this one included.")
    versions: dict[str, str] = Field(description="Version of each library that computes.")
    all: ImageScores = Field(description="On all images, as if the model had answered each of them.")
    answered: ImageScores | None = Field(description="On the images that it answers; null if it answers none.")
    referred: dict[str, int] = Field(description="Number of referred images by reason; an image can have several.")
    coverage: Answered = Field(description="Images that it answers, and how often these answers are wrong.")
    risk_coverage: dict[str, RiskCoverage] = Field(
        description="On all images: risk by coverage of `finding`, the answer finding or none, and, where there are "
        "more than two classes, of `classes`, the most likely class."
    )
    bands: dict[str, OperatingBand] = Field(
        default_factory=dict,
        description="The frozen bands of referral by operating point, and what they do on all images.",
    )
    decision_curve: DecisionCurve = Field(description="On all images: net benefit of acting on the probability.")
    distances: Distances
    subgroups: list[Subgroup]
    mistakes: Mistakes
    shortcuts: list[ShortcutTest] = Field(
        default_factory=list,
        description="Whether answers come from the lungs; empty if `evaluate.robustness` is off.",
    )
    shortcut_images: int = Field(default=0, description="Number of scored images that these tests used.")
    map_sanity: MapSanity | None = Field(
        default=None, description="Null without exact maps, if it is off, or if the bundle of the version is gone."
    )
    internal: Internal | NoInternal


if __name__ == "__main__":
    print(json.dumps(ValidationReport.json_schema(), indent=2))
