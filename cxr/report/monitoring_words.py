"""Tables, notices and methods of the report of a monitoring."""

from cxr.evaluation.statistics import Estimate
from cxr.monitoring.judge import ANY, UNREADABLE, alarms
from cxr.monitoring.label_shift import WORST
from cxr.monitoring.results import Judged, MonitoringReport, Part, TruthScores, Window
from cxr.monitoring.truths import OF_CLASS
from cxr.report.formatting import number
from cxr.report.validation_words import title

SYNTHETIC = "This model was trained on drawn phantoms, no patients. Its answers say nothing about X-rays."
OUT_OF_FOLD = (
    "The reference of this ensemble of folds has the answers of single members, each to images it was not trained on; "
    "in use, all members answer together. Probabilities differ a little by that alone."
)
METHODS = (
    "Reference: the answers of this version to its validation images, kept with it. Numbers are compared by the "
    "population stability index (PSI), the sum of (s - r) ln(s / r) over bins at quantiles of the reference, with "
    "half an image added to each bin, and by the Kolmogorov-Smirnov distance (KS), the largest difference of the "
    "shares below any value.",
    "An alarm is a distance above its limit that chance does not make. The PSI is biased upwards in small samples, by "
    "about (1/m + 1/n) times a chi-square of one degree of freedom fewer than bins (Yurdakul and Naranjo 2020). What "
    "chance makes of it is simulated for as many images: shares between the bounds from a Dirichlet distribution, "
    "counts from a multinomial one; so is what it makes of estimated shares of classes. For KS it follows from its "
    "distribution, for shares of referred images from a beta-binomial one.",
    "Several images of one patient count less than as many independent ones: numbers of images are divided by the "
    "design effect that validation shows (Rao and Scott 1981). Answers do not name patients; it is assumed that their "
    "images are as many and as alike.",
    "Shares of true classes are estimated without truths from the shares of the likeliest class and the confusion "
    "matrix of validation (black-box shift estimation, Lipton, Wang and Smola 2018). That holds only if images of "
    "each class look as before: not where columns or referrals have drifted. Intervals: 95 %, from resamples of both.",
)
_SCORES = ("sensitivity", "specificity", "ppv", "npv", "accuracy", "balanced_accuracy", "macro_f1", "loss")


def notices(report: MonitoringReport) -> list[str]:
    """What a reader must know before any number."""
    told = [SYNTHETIC] if report.model.synthetic else []
    told += [OUT_OF_FOLD] if report.model.out_of_fold else []
    if report.input.others:
        others = ", ".join(f"{count:,} of version {name}" for name, count in report.input.others.items())
        told.append(f"Answers of other versions are left out: {others}.")
    gaps = [window for window in report.windows if window.part is None]
    if gaps:
        few = f"{report.unit}s with fewer than {report.settings.window_images} images, not judged"
        told.append(f"{few.capitalize()}: {len(gaps)} of {len(report.windows)}.")
    dark = [window for window in report.windows if window.part is not None and not window.part.columns]
    if dark:
        few = f"{report.unit}s of which fewer than {report.settings.window_images} images could be read"
        told.append(
            f"{few.capitalize()}, judged by the share of unreadable ones alone: {len(dark)} of {len(report.windows)}."
        )
    return told


def verdict(report: MonitoringReport) -> str:
    """What it means that no limit is passed."""
    if report.whole.columns:
        return "No limit is passed: the answers are like those to the validation images."
    return "No limit is passed, but too few images could be read to hold answers against those to validation images."


def chances(report: MonitoringReport) -> str:
    """What the family of comparisons is."""
    judged = sum(window.part is not None for window in report.windows)
    return (
        f"{report.comparisons:,} comparisons can raise an alarm: of all answers and of {judged:,} {report.unit}s. "
        f"Of undisturbed images, any of them does with a chance of {report.settings.false_alarms:.0%} at most."
    )


def columns(part: Part) -> list[tuple[str, ...]]:
    """Distances of each number of the answers, of which enough images were read."""
    rows = [
        (
            name,
            _judged(column.psi),
            _judged(column.ks),
            *(f"{at:.4g}" for at in (column.low, column.median, column.high)),
        )
        for name, column in part.columns.items()
    ]
    likeliest = [] if part.label_psi is None else [("likeliest class", _judged(part.label_psi), "", "", "", "")]
    return rows + likeliest


def referred(part: Part) -> list[tuple[str, ...]]:
    """Shares of referred images by kind of reason."""
    words = {ANY: "for any reason", UNREADABLE: "not referred: unreadable"}
    return [
        (
            words.get(kind, kind),
            f"{found.images:,}",
            f"{found.share:.1%}",
            f"{found.expected:.1%}",
            "never" if found.rise.limit is None else f"{found.expected + found.rise.most:.1%}",
            "alarm" if found.rise.alarm else "",
        )
        for kind, found in part.referred.items()
    ]


def classes(part: Part) -> list[tuple[str, ...]]:
    """Estimated shares of the true classes."""
    called = max(1, sum(part.labels.values()))
    return [
        (
            name,
            f"{part.labels[name] / called:.1%}",
            number(found.share),
            f"{found.expected:.3f}",
            _judged(found.change),
        )
        for name, found in part.label_shift.classes.items()
    ]


def condition(report: MonitoringReport) -> str:
    """How much the confusion matrix of validation can tell."""
    worth = report.model.condition
    if worth is None:
        return "A class has no validation images."
    return (
        f"The condition number of the confusion matrix of validation is {worth:.1f}: errors of the shares are enlarged "
        f"by that factor at most. 1 is perfect; above {WORST:g}, nothing is estimated."
    )


def scores(found: TruthScores, finding: str) -> list[tuple[str, str]]:
    """Scores of the answers whose truth is known."""
    names = (f"auc_{finding}", f"auc_{finding}_delong", *_SCORES)
    return [(title(name, finding), number(found.scores[name])) for name in names]


def not_judged(report: MonitoringReport) -> str:
    """From how many patients on scores are held against their limits, and which are not."""
    rule = (
        f"A score is held against its limit where {report.settings.window_images} patients or more have a truth, "
        f"{OF_CLASS} of each class that it is about."
    )
    found = {} if report.whole.scores is None else report.whole.scores.not_judged
    told = [f"{title(name, report.model.finding)} ({why})" for name, why in found.items()]
    return f"{rule} Of all answers, these are not: {'; '.join(told)}." if told else rule


def windows(report: MonitoringReport) -> list[tuple[str, ...]]:
    """One row for each window."""
    return [_window(window, report.model.finding) for window in report.windows]


def _window(window: Window, finding: str) -> tuple[str, ...]:
    begin, part = f"{window.begin:%Y-%m-%d}", window.part
    if part is None:
        return (begin, f"{window.images:,}", "too few images", "", "", "", "")
    worst = max(((column.psi.value, name) for name, column in part.columns.items()), default=None)
    auc = part.scores.scores[f"auc_{finding}"] if part.scores is not None else Estimate(value=None)
    found = alarms(part)
    return (
        begin,
        f"{window.images:,}",
        f"{worst[0]:.3f} ({worst[1]})" if worst else "too few images read",
        f"{part.referred[ANY].share:.1%}" if ANY in part.referred else "",
        number(auc) if auc.value is not None else "",
        str(len(found)) if found else "",
        "; ".join(found),
    )


def _judged(found: Judged) -> str:
    if found.limit is None:
        return f"{found.value:.3f}"
    alarm = " – alarm" if found.alarm else ""
    return f"{found.value:.3f}, at most {found.most:.3f}{alarm}"
