"""Tables and notices of the report of a validation."""

from cxr.evaluation.statistics import Estimate, Scores
from cxr.evaluation.validation_results import ImageScores, Internal, ValidationReport
from cxr.report import formatting
from cxr.report.formatting import NAMES, methods, number, signed

NO_MAPS = formatting.NO_MAPS
SYNTHETIC_MODEL = "This model was trained on drawn phantoms, no patients. Its scores say nothing about X-rays."
SYNTHETIC_SET = "SYNTHETIC DATA: drawn phantoms, no patients. These scores say nothing about X-rays."
FROZEN = (
    "Nothing was chosen or changed for this set: weights, preprocessing, temperature, thresholds and the rules of "
    "referral are those of the registered version, and the answers come from the code that serves it."
)
METHODS = methods(
    "the interval of a difference takes the two sets for independent, and is made of theirs (Newcombe 1998) where one "
    "of them is wider than its resamples"
)
_SHOWN = ("sensitivity", "specificity", "ppv", "npv", "accuracy", "balanced_accuracy", "macro_f1", "loss")
_NAMES = NAMES | {
    "calibration_in_the_large": "calibration in the large (0 is perfect)",
    "calibration_slope": "calibration slope (1 is perfect)",
    "calibration_intercept": "intercept beside the slope (0 is perfect)",
}


def title(name: str, finding: str) -> str:
    """A score in words."""
    of_finding = {
        f"auc_{finding}": f"AUC, {finding}",
        f"auc_{finding}_delong": "AUC, DeLong interval",
        f"average_precision_{finding}": f"average precision, {finding}",
    }
    return of_finding.get(name) or _NAMES.get(name, name.replace("_", " "))


def notices(report: ValidationReport) -> list[str]:
    """What a reader must know before any number."""
    told = []
    if report.model.synthetic:
        told.append(SYNTHETIC_MODEL)
    if report.data.source.synthetic:
        told.append(SYNTHETIC_SET)
    overlap = report.data.overlap
    if not overlap.checked:
        why_not = f"{overlap.why_not[0].upper()}{overlap.why_not[1:]}"
        told.append(f"{why_not}. Scores on images seen in training are too good.")
    if overlap.own_test:
        told.append(
            f"{overlap.own_test:,} of the images stand in the model's own test split: on these it is no external "
            "validation, and the intervals of differences below, which take the two sets for independent, do not hold."
        )
    return told


def scores(report: ValidationReport) -> list[tuple[str, str, str]]:
    """Name of each score, its value on all images, and on those that the model answers."""
    finding = report.data.finding
    names = (f"auc_{finding}", f"auc_{finding}_delong", f"average_precision_{finding}", *_SHOWN)
    return [(title(name, finding), number(report.all.scores[name]), number(_answered(report, name))) for name in names]


def _answered(report: ValidationReport, name: str) -> Estimate:
    return report.answered.scores[name] if report.answered is not None else Estimate(value=None)


def classes(report: ValidationReport) -> list[tuple[str, ...]]:
    """Scores of each class against the rest, on all images."""
    part = report.all
    return [
        (
            name,
            f"{part.by_class[name]:,}",
            *(number(part.scores[f"{score}_{name}"]) for score in ("precision", "recall", "f1", "auc")),
        )
        for name in report.data.classes
    ]


def points(part: ImageScores | None) -> list[tuple[str, ...]]:
    """How each operating point does on some images."""
    return [
        (
            point.name,
            f"{point.threshold:.3f}",
            *(number(point.scores[name]) for name in ("sensitivity", "specificity", "ppv", "npv")),
        )
        for point in (part.operating_points if part is not None else [])
    ]


def prevalences(report: ValidationReport) -> list[tuple[str, ...]]:
    """Predictive values of each operating point at other prevalences."""
    return [
        (point.name, f"{at.prevalence * 100:g} %", number(at.ppv), number(at.npv))
        for point in report.all.operating_points
        for at in point.prevalences
    ]


def side_by_side(internal: Internal, finding: str) -> list[tuple[str, str, str, str]]:
    """Each score on the model's own test split and on the set, and the difference."""
    return [
        (title(name, finding), number(row.internal), number(row.external), signed(row.difference))
        for name, row in internal.scores.items()
    ]


def net_benefit(report: ValidationReport) -> list[tuple[str, ...]]:
    """Net benefit at each operating point."""
    return [
        (f"{name} (p ≥ {at.threshold:.3f})", number(at.model), number(at.treat_all), signed(at.advantage))
        for name, at in report.decision_curve.operating_points.items()
    ]


def areas(report: ValidationReport) -> list[tuple[str, str, str]]:
    """Area under each curve of risk by coverage, and the risk if all images are answered."""
    answers = {"finding": f"{report.data.finding} or none", "classes": "the most likely class"}
    curves = report.risk_coverage.items()
    return [(answers[name], number(curve.area), number(curve.curve[-1].risk)) for name, curve in curves]


def calibration(report: ValidationReport) -> list[tuple[str, str, str]]:
    """Each measure of calibration on all images, and on those that the model answers."""
    every, some = ({} if part is None else _calibration(part) for part in (report.all, report.answered))
    finding, undefined = report.data.finding, Estimate(value=None)
    return [(title(name, finding), number(value), number(some.get(name, undefined))) for name, value in every.items()]


def _calibration(part: ImageScores) -> Scores:
    return {f"calibration_{name}": value for name, value in part.finding} | dict(part.calibration)


def absent(report: ValidationReport) -> str:
    """What the set lacks, and which scores are therefore undefined; empty if it lacks nothing."""
    missing = [name for name, count in report.all.by_class.items() if not count]
    if not missing:
        return ""
    return (
        f"The set has no images of {' and '.join(missing)}: scores that need them are undefined and shown as a dash, "
        "such as areas under curves and predictive values."
    )
