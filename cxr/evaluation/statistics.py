"""The statistics of a set of images as types: estimates, calibration, net benefit, and risk by coverage.

They are parts of `report.json` (see `cxr.evaluation.results`), and are computed from arrays alone, so that every step
that scores images reports the same.
"""

from typing import Literal

from pydantic import Field

from cxr.evaluation.facts import ReportModel


class Estimate(ReportModel):
    """A score and its interval; all null where the score is undefined, e.g. a sensitivity without positives."""

    value: float | None = Field(description="The score of the images themselves.")
    low: float | None = Field(default=None, description="Lower end of the 95 % interval.")
    high: float | None = Field(default=None, description="Upper end of the 95 % interval.")


Scores = dict[str, Estimate]  # by the name of the score, e.g. "macro_f1", "recall_virus", "auc_pneumonia_delong"


class CalibrationErrors(ReportModel):
    """How far probabilities are from the truth; 0 is perfect for all four."""

    ece: Estimate = Field(description="Expected calibration error of the predicted class, 15 bins of equal width.")
    adaptive_ece: Estimate = Field(description="Expected calibration error, 15 bins of equal count.")
    brier: Estimate = Field(description="Brier score, summed over the classes: 0 to 2.")
    nll: Estimate = Field(description="Mean negative log-likelihood of the true class, nats.")


class Recalibration(ReportModel):
    """The probability of the finding as a predictor of the truth: a logistic regression on its log-odds."""

    in_the_large: Estimate = Field(
        description="Calibration in the large: intercept with the slope fixed at 1, in log-odds. 0 is perfect; below 0 "
        "the probabilities are too high on average, above 0 too low."
    )
    intercept: Estimate = Field(description="Intercept beside a free slope, in log-odds; 0 is perfect.")
    slope: Estimate = Field(
        description="Calibration slope: 1 is perfect; below 1 the probabilities are too extreme, above 1 too moderate."
    )


class Calibration(ReportModel):
    """Calibration before and after temperature scaling."""

    temperature: float = Field(description="Logits are divided by it before the softmax.")
    before: CalibrationErrors = Field(description="Errors at temperature 1.")
    after: CalibrationErrors = Field(description="Errors at `temperature`.")
    finding: Recalibration = Field(description="Of the finding as yes or no, at `temperature`.")


class NetBenefit(ReportModel):
    """Net benefit at one threshold: true positives, less false positives at the exchange rate of the threshold.

    Both are shares of all images; treating nobody has a net benefit of 0.
    """

    threshold: float = Field(description="Threshold on the probability of the finding.")
    model: Estimate = Field(description="Net benefit of treating those that the model calls positive.")
    treat_all: Estimate = Field(description="Net benefit of treating everybody.")
    advantage: Estimate = Field(description="Net benefit of the model minus that of the better of all and none.")


class DecisionCurve(ReportModel):
    """Net benefit over thresholds (A. J. Vickers, E. B. Elkin, 2006)."""

    curve: list[NetBenefit] = Field(description="Thresholds in rising order.")
    operating_points: dict[str, NetBenefit] = Field(description="Net benefit at the operating points by name.")


class RiskAtCoverage(ReportModel):
    """How often answers are wrong if only the most confident ones are given."""

    coverage: float = Field(description="Share of images that are answered.")
    risk: Estimate = Field(description="Share of wrong answers among them.")


class RiskCoverage(ReportModel):
    """Risk by coverage, where the most confident answers are given first."""

    area: Estimate = Field(description="Area under the curve (AURC): mean risk over all coverages; 0 is perfect.")
    curve: list[RiskAtCoverage] = Field(description="Coverages in rising order; the last one is 1.")


class Answered(ReportModel):
    """What remains if the images that the served model refers are left to a person."""

    coverage: Estimate = Field(description="Share of images that are answered.")
    risk: Estimate = Field(description="Share of wrong answers, finding or none, among those answered.")
    risk_of_all: Estimate = Field(description="Share of wrong answers if no image were referred.")


class Referral(ReportModel):
    """What referring undecided images costs and saves at one operating point, on one set of images.

    Only the band counts here, not what the served model refers for other reasons.
    """

    images: int = Field(description="Number of images within the band.")
    share: Estimate = Field(description="Share of the images within the band: what referring costs.")
    risk: Estimate = Field(description="Share of wrong decisions among the images outside of it, which are answered.")
    risk_of_all: Estimate = Field(description="Share of wrong decisions if no image were referred.")
    sensitivity: Estimate = Field(description="Among the answered.")
    specificity: Estimate = Field(description="Among the answered.")
    curve: list[RiskAtCoverage] = Field(
        description="The same trade for bands of other widths: the images farthest from the threshold, in log-odds, "
        "are answered first. Coverages in rising order; the last one is 1."
    )


class OperatingBand(ReportModel):
    """The band of probabilities of the finding in which the model refers at one operating point."""

    threshold: float = Field(description="Least probability of the finding that is called positive.")
    low: float = Field(description="Least probability that is referred; below it, the decision is the negative class.")
    high: float = Field(description="Least probability that no longer is; from it on, the decision is the finding.")
    on: dict[str, Referral] = Field(description="By the name of the set of images: `validation`, `test`, `this set`.")


class ChosenBands(ReportModel):
    """How the bands of all operating points were chosen on validation, and what they cost and save."""

    rule: Literal["refer_share", "risk"] = Field(
        description="`refer_share`: the widest band that refers at most `limit` of the validation images; `risk`: the "
        "narrowest one that leaves at most `limit` wrong decisions among the others."
    )
    limit: float
    images: int = Field(description="Number of validation images.")
    points: dict[str, OperatingBand] = Field(description="By the name of the operating point.")
