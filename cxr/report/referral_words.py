"""The rule of decision and its bands of referral, as report, model card and checklist state them."""

from cxr.evaluation.results import EvaluationReport
from cxr.evaluation.statistics import ChosenBands, OperatingBand
from cxr.report.formatting import number
from cxr.serving.probabilities import in_digits

HEAD = (
    *("point", "threshold", "band", "images", "referred as undecided", "wrong among the answered"),
    *("wrong if all are answered", "sensitivity of the answered", "specificity of the answered"),
)
MARGIN = (
    "The limit was kept on validation, where the bands were chosen, without a margin for chance; on other images, the "
    "share referred and the share of wrong answers can both be larger. What the model refers for other reasons comes "
    "on top."
)


def rule(report: EvaluationReport) -> str:
    """How the served model decides, in one sentence."""
    finding, negative = report.model.finding, report.model.classes[0]
    decided = (
        f"The model answers {finding} if its probability is at or above the threshold of the operating point, and "
        f"{negative} if it is below"
    )
    return f"{decided}, {_band(report.bands)}." if report.bands is not None else f"{decided}."


def _band(chosen: ChosenBands) -> str:
    band = (
        "but in a band around the threshold, as far from it at both ends in log-odds, it refers the image to a person"
    )
    images, limit = f"{chosen.images:,} validation images", f"{100 * chosen.limit:.3g} %"
    if chosen.rule == "risk":
        return f"{band}: the narrowest band that leaves at most {limit} of its answers on {images} wrong"
    return f"{band}: the widest band with at most {limit} of {images} in it"


def band_of(band: OperatingBand) -> str:
    """The ends of a band, `0.4 to 0.6`; `none` if it refers nothing."""
    return f"{in_digits(band.low)} to {in_digits(band.high)}" if band.low < band.high else "none"


def rows(points: dict[str, OperatingBand]) -> list[tuple[str, ...]]:
    """What each band costs and saves, a row for each operating point and set of images."""
    told: list[tuple[str, ...]] = []
    for name, band in points.items():
        head = (name, in_digits(band.threshold), band_of(band).replace(" ", "\N{NO-BREAK SPACE}"))
        for word, found in band.on.items():
            scores = (found.risk, found.risk_of_all, found.sensitivity, found.specificity)
            told.append((*head, word, f"{found.images:,}: {number(found.share)}", *(number(score) for score in scores)))
            head = ("", "", "")
    return told
