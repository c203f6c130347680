"""The results of an evaluation as one tree of types: the content of `report.json`, field by field.

`EvaluationReport` is the root; the types in `cxr.evaluation.facts` describe what was evaluated, those in
`cxr.evaluation.statistics` and `cxr.evaluation.probes` what was measured. Scores are fractions from 0 to 1 unless
stated otherwise. NaN and infinity are refused everywhere. `docs/report.schema.json` is the JSON schema of the tree;
after a change, write it again:

    python -m cxr.evaluation.results > docs/report.schema.json
"""

import json
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from cxr.evaluation.facts import DataFacts, ModelFacts, ReportModel, SeenImages, WholeReport
from cxr.evaluation.probes import MapSanity, Robustness
from cxr.evaluation.statistics import (
    Answered,
    Calibration,
    ChosenBands,
    DecisionCurve,
    Estimate,
    RiskCoverage,
    Scores,
)
from cxr.settings.schema import Settings

# The settings have a schema of their own that grows with the program; the report's need not change with it.
_AnySettings = WithJsonSchema({"type": "object", "description": "All settings, under the keys of params.yaml."})


class PredictiveValues(ReportModel):
    """Predictive values at an assumed prevalence, by Bayes' rule."""

    prevalence: float = Field(description="Assumed share of patients with the finding.")
    ppv: Estimate = Field(description="Positive predictive value.")
    npv: Estimate = Field(description="Negative predictive value.")


class OperatingPoint(ReportModel):
    """A rule that decides between the finding and the negative class, and how it does."""

    name: str = Field(description="`argmax`, `youden` or `sensitive`.")
    threshold: float = Field(description="Least probability of the finding that is called positive.")
    scores: Scores = Field(description="`sensitivity`, `specificity`, `ppv` and `npv`.")
    prevalences: list[PredictiveValues] = Field(description="Predictive values at other prevalences.")


class SplitResult(ReportModel):
    """Results on one split."""

    images: int = Field(description="Number of images.")
    patients: int = Field(description="Number of patients.")
    by_class: dict[str, int] = Field(description="Number of images by true class.")
    scores: Scores = Field(
        description="Every score by name. Those of the finding against the negative class are decided at `argmax`, a "
        "probability of 0.5, those over all classes by the most likely class; `loss` is in nats."
    )
    calibration: Calibration
    operating_points: list[OperatingPoint]
    decision_curve: DecisionCurve = Field(description="Net benefit of acting on the probability of the finding.")
    risk_coverage: dict[str, RiskCoverage] = Field(
        description="Risk by coverage of `finding`, the answer finding or none, and, where there are more than two "
        "classes, of `classes`, the most likely class."
    )


class Subgroup(ReportModel):
    """Scores of a group of test images that the table of labels or file properties tell apart."""

    question: str = Field(description="The property, e.g. `age` or `colour mode`.")
    group: str = Field(description="Its value for these images, e.g. `grey`.")
    images: int = Field(description="Number of images.")
    patients: int = Field(description="Number of patients.")
    scores: Scores


class Mistake(ReportModel):
    """A misclassified test image."""

    path: str = Field(description="Path below the root of the dataset.")
    truth: str = Field(description="True class.")
    prediction: str = Field(description="Predicted class.")
    probability: float = Field(description="Probability of the predicted class.")


class Mistakes(ReportModel):
    """The mistakes in the gallery."""

    maps: bool = Field(description="Whether the gallery shows class activation maps.")
    images: list[Mistake] = Field(description="The most confident mistakes, the most confident first.")


class DoubtfulLabel(ReportModel):
    """An image whose given label the model denies."""

    path: str = Field(description="Path below the root of the dataset.")
    given: str = Field(description="Given label.")
    prediction: str = Field(description="Likeliest class.")
    margin: float = Field(description="Probability of the given label minus that of the likeliest class, -1 to 0.")


class LabelAudit(ReportModel):
    """Labels that the model doubts (confident learning), and scores with and without their images.

    Leaving them out is descriptive: images that are chosen by the model's own answers flatter it.
    """

    images: int = Field(description="Number of images outside the test split, each answered out of fold.")
    doubtful: dict[str, int] = Field(description="Number of doubtful labels by given label; all in `label_audit.csv`.")
    self_confidence: dict[str, float] = Field(
        description="Mean probability of the given label over the images with that label."
    )
    listed: list[DoubtfulLabel] = Field(description="The most doubtful, at most `evaluate.gallery` of them.")
    with_all: Scores = Field(description="Scores on all of the images.")
    without: Scores = Field(description="Scores without the images of doubtful labels.")


class Comparison(ReportModel):
    """Two models on the same images of one split."""

    images: int | None = Field(default=None, description="Number of images that both answered.")
    left_out: int | None = Field(
        default=None,
        description="Number of further images of the split, which the other model was trained or chosen on, or on "
        "copies of them or other images of their patients; null if it is of the same split.",
    )
    differences: Scores = Field(description="Score of this model minus score of the other, by name, paired interval.")
    other: dict[str, float | None] = Field(description="Scores of the other model.")
    only_ours_right: int = Field(description="Number of images that only this model classifies correctly.")
    only_theirs_right: int = Field(description="Number of images that only the other model classifies correctly.")
    mcnemar_p: float = Field(description="Exact two-sided McNemar p-value for equal accuracy.")


class ChampionComparison(ReportModel):
    """This model and the champion at the time of registration."""

    version: int = Field(description="Registered version of the champion.")
    validation: Comparison
    test: Comparison | None = Field(description="Null if a champion of another split has seen all test images.")


class NoComparison(ReportModel):
    """A champion that this model cannot be compared with."""

    version: int = Field(description="Registered version of the champion.")
    why_not: str = Field(description="The reason, one line.")


class GateCheck(ReportModel):
    """One rule of the registry gate."""

    rule: str = Field(description="The rule.")
    passed: bool
    words: str = Field(description="What was observed.")


class GateResult(ReportModel):
    """Decision of the registry gate, on validation alone."""

    verdict: str = Field(description="Alias given to the version and the reason, as `ALIAS: REASON`.")
    checks: list[GateCheck] = Field(description="Every rule checked; empty if the version was registered before.")


class RegisteredVersion(ReportModel):
    """A version in the model registry."""

    name: str = Field(description="Name of the registered model.")
    version: int


class Referrals(ReportModel):
    """Images of one split that the served model refers to a person instead of deciding."""

    images: int = Field(description="Number of images.")
    share: float = Field(description="Share of images referred for any reason.")
    reasons: dict[str, int] = Field(description="Number of images by reason; an image can have several.")
    answered: Answered | None = Field(default=None, description="How the model does on the images that it answers.")


class PackagingResult(ReportModel):
    """Check of the files to be served against the evaluated bundle."""

    largest_difference: float = Field(description="Largest difference between served and evaluated probabilities.")
    engine: str = Field(default="onnxruntime", description="What runs the network: `onnxruntime` or `openvino`.")
    operating_point: str = Field(description="The operating point that the model uses unless a request names another.")
    referred: dict[str, Referrals] = Field(description="Referrals at that point by split, `val` and `test`.")


class Registration(ReportModel):
    """Outcome of registering a model; the fields are those of `EvaluationReport`."""

    registered: RegisteredVersion | None = None
    gate: GateResult | None = None
    champion: ChampionComparison | NoComparison | None = None
    served: PackagingResult | None = None


class ChecklistItem(ReportModel):
    """An item of the reporting checklists."""

    claim: str = Field(description="Number in CLAIM 2024, or `-`.")
    tripod: str = Field(description="Numbers in TRIPOD+AI, or `-`.")
    stard: str = Field(description="Numbers in STARD-AI, or `-`.")
    topic: str = Field(description="What the item asks for.")
    status: Literal["filled", "open"]
    answer: str = Field(description="The answer, or what is missing if open.")


class ExternalValidation(ReportModel):
    """The newest validation of the model, or else of another version of it, on data of another origin."""

    run_id: str = Field(description="MLflow run of the validation.")
    data: str = Field(description="The data, in words: citation or address.")
    images: int = Field(description="Number of images scored.")
    patients: int = Field(description="Number of patients.")
    auc: Estimate = Field(description="Area under the ROC curve of the finding.")
    other_version: int | None = Field(
        default=None,
        description="The validated version if it is another one; null if it is the evaluated one.",
    )


class EvaluationReport(WholeReport):
    """All results of one evaluation: the content of `report.json`."""

    # Raised when a field is renamed or removed, or changes its meaning.
    schema_version: Literal[2] = Field(default=2, description="Version of this schema.")
    created: datetime = Field(description="When the report was written, UTC.")
    resamples: int = Field(description="Number of bootstrap resamples of patients behind the intervals.")
    model: ModelFacts
    data: DataFacts
    runs: dict[str, str] = Field(description="ID of the MLflow run of each step that led here, this one included.")
    settings: Annotated[Settings, _AnySettings]
    versions: dict[str, str] = Field(description="Version of each library that computes.")
    validation: SplitResult | None = Field(
        description="Results on the split that temperature and thresholds were chosen on; null if it has no images."
    )
    seen: SeenImages | None = Field(default=None, description="Null if the model is of this split.")
    out_of_fold: bool = Field(
        default=False,
        description="Whether `validation` is out of fold: all images outside the test split, each answered by the one "
        "member of the ensemble that was not trained on it.",
    )
    test: SplitResult = Field(description="Results on the split that nothing was chosen on.")
    bands: ChosenBands | None = Field(
        default=None,
        description="In which probabilities the model refers, chosen on `validation`; null without such images, and if "
        "the model is of another split.",
    )
    subgroups: list[Subgroup] = Field(description="Scores on groups of the test images.")
    small_subgroups: dict[str, int] = Field(
        default_factory=dict,
        description="Number of test images of each group that is too small for scores, by `property: group`.",
    )
    robustness: Robustness | None = Field(default=None, description="Null if `evaluate.robustness` is off.")
    map_sanity: MapSanity | None = Field(default=None, description="Null without exact maps, or if it is off.")
    mistakes: Mistakes
    label_audit: LabelAudit | None = Field(default=None, description="Null without out-of-fold answers.")
    registered: RegisteredVersion | None = Field(default=None, description="Null if the model was not registered.")
    gate: GateResult | None = Field(default=None, description="Null if the model was not registered.")
    champion: ChampionComparison | NoComparison | None = Field(
        default=None, description="Null if there was no champion."
    )
    served: PackagingResult | None = Field(default=None, description="Null if this run packaged no model.")
    external: ExternalValidation | None = Field(
        default=None, description="Null if the model was not validated on other data when the report was written."
    )
    checklist: list[ChecklistItem] = Field(
        default_factory=list, description="Reporting checklists, filled from this report."
    )


if __name__ == "__main__":
    print(json.dumps(EvaluationReport.json_schema(), indent=2))
