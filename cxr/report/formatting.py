"""Numbers, names and notices as the report and the model card show them."""

from cxr.common.names import PNEUMONIA
from cxr.evaluation.facts import ModelFacts
from cxr.evaluation.results import EvaluationReport, SplitResult
from cxr.evaluation.statistics import Estimate, Scores
from cxr.settings.classes import CLASS_NAMES

# Of models of the classes of the Kermany dataset.
_INTENDED_USE = (
    "For research and teaching: telling normal chest X-rays of young children from those with pneumonia, and bacterial "
    "from viral pneumonia. It is not a medical device, has not been tested in any clinic and must not be used for "
    "diagnosis."
)
_LIMITS = (
    "Trained and tested on children aged one to five years from one hospital: results do not carry over to adults, "
    "other hospitals, other machines or bedside images.",
    "The images were taken in routine care; the proportions of normal and pneumonia images do not reflect the "
    "prevalence in any ward. Read predictive values at the prevalence of the place of use.",
    "Labels come from readers of the images, not from laboratory tests. Bacterial and viral pneumonia look alike, and "
    "errors in the labels are errors in these scores.",
    "The model knows only normal and pneumonia: an image with any other finding still gets one of these answers.",
)
_ALONE = (
    "Every image counts as a patient of its own. Where the source does not name its patients, images of one of them "
    "may be in training and test, and the intervals are too narrow."
)
# M. I. Neuman et al., "Variability in the interpretation of chest radiographs for the diagnosis of pneumonia in
# children", Journal of Hospital Medicine 7 (2012); six radiologists, 110 radiographs.
READERS = (
    "The labels bacteria and virus are what readers saw in the images, so these scores measure agreement with those "
    "readers, not with laboratory findings. Radiologists agree only in part on the signs by which the two are told "
    "apart: in one study of radiographs of children, kappa was 0.69 for alveolar and 0.14 for interstitial infiltrates "
    "(Neuman et al., 2012). A score close to 1 would say as much about the labels as about the model."
)
OUT_OF_FOLD = (
    "Every image outside the test split was a training image of all members of this ensemble but one. On validation, "
    "each image is therefore answered by the one member that was not trained on it (but chose its epoch and its "
    "temperature on it), and the scores are those of single members: usually a lower bound of what the ensemble does. "
    "Temperature, thresholds and the decision of the registry gate rest on these answers."
)
SYNTHETIC = "SYNTHETIC DATA: drawn phantoms, no patients. These scores say nothing about X-rays."

ECE = (
    "The expected calibration error of a finite sample is above zero even if the probabilities are perfect. Its "
    "interval allows for that in part: read it as too high rather than too low."
)


def methods(differences: str) -> tuple[str, ...]:
    """How intervals were made, a paragraph each; `differences` says it of the intervals of differences."""
    return (
        "Intervals: 95 %, between percentiles of bootstrap resamples of patients with all of their images (Davison and "
        f"Hinkley 1997), for expected calibration errors mirrored at the value (basic bootstrap); {differences}. "
        "Resamples of a sensitivity, specificity or other share of the images near 0 or 1 vary too little: with fewer "
        "than five exceptions, counted in patients, the interval is at least as wide as the exact one of Clopper and "
        "Pearson (1934) with patients as trials. Intervals named DeLong, and p-values of McNemar's test, treat images "
        "as independent. The interval of an AUC or F1 of 0 or 1, or of a mean of such scores, has no width, however "
        "few the patients: it does not say how sure the score is.",
        "Coverage: in a simulation of 400 studies, each of 350 patients with one to six images, and with shares of "
        "0.77 to 0.91, these intervals contained the truth in 92 to 96 % of the studies, those of the expected "
        "calibration errors in 87 to 88 %; had images been drawn instead of patients, in 74 to 88 % (python -m "
        "bench.coverage).",
        "The intervals of shares from 0.9 to 0.995 of 40 or 125 patients contained them in at least 95 % of samples "
        "(python -m bench.coverage).",
        "Predictive values at other prevalences follow from sensitivity and specificity by Bayes' rule, and where "
        "these have exact intervals, their intervals from the ends of both.",
    )


METHODS = methods("the interval of a difference is paired")
NO_MAPS = "This model has no exact class activation maps, as ensembles and some architectures have none."

NAMES = {
    "loss": "loss (cross entropy, nats)",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "ece": "expected calibration error (15 bins of equal width)",
    "adaptive_ece": "expected calibration error (15 bins of equal count)",
    "brier": "Brier score (0 to 2)",
    "nll": "negative log-likelihood, nats",
}
_POINTS = {
    "youden": "the threshold with the largest sensitivity + specificity on validation",
    "sensitive": "the threshold with the highest specificity among those with the required sensitivity on validation",
}
SPLITS = ("train", "val", "test")


def intended_use(report: EvaluationReport) -> str:
    """What the model is for, in a few sentences."""
    if is_of_kermany(report):
        return _INTENDED_USE
    classes = report.model.classes
    return (
        f"For research and teaching: telling chest X-rays labelled {' or '.join(classes[1:])} from those labelled "
        f"{classes[0]}. It is not a medical device, has not been tested in any clinic and must not be used for "
        "diagnosis."
    )


def limits(report: EvaluationReport) -> tuple[str, ...]:
    """What the scores do not say, a paragraph each."""
    alone = (_ALONE,) if is_one_image_each(report) else ()
    if is_of_kermany(report):
        return (*_LIMITS[:3], _equal(report, "children"), *alone, *_LIMITS[3:])
    model = report.model
    names = [*model.classes[:-2], " and ".join(model.classes[-2:])]
    return (
        "Trained and tested on the images of one source: results do not carry over to other patients, other hospitals, "
        "other machines or bedside images.",
        f"The proportions of {' and '.join([model.classes[0], model.finding])} among the images need not reflect the "
        "prevalence in any ward. Read predictive values at the prevalence of the place of use.",
        "Labels are those of the source: errors in the labels are errors in these scores.",
        _equal(report, "patients"),
        *alone,
        f"The model knows only {', '.join(names)}: an image with any other finding still gets one of these answers.",
    )


def is_of_kermany(report: EvaluationReport) -> bool:
    """Whether the images are, by their names and classes, those of the Kermany dataset, of which more is known."""
    model, data = report.model, report.data
    named = data.named_as_published and data.source.labels is None and not data.source.synthetic
    return named and model.finding == PNEUMONIA and tuple(model.classes) in CLASS_NAMES.values()


def known(report: EvaluationReport) -> list[str]:
    """What a table says of the patients and images: some of `age`, `sex`, `view`, `site` and `scanner`."""
    return list(dict.fromkeys(characteristic.name for characteristic in report.data.characteristics))


def unknown(report: EvaluationReport) -> str:
    """Those of age, sex and origin that are not in the data, as `age, sex and origin`; empty if all are."""
    words = [word for name, word in (("age", "age"), ("sex", "sex"), ("site", "origin")) if name not in known(report)]
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def _equal(report: EvaluationReport, who: str) -> str:
    missing = unknown(report)
    if not missing:
        return (
            "Scores by age, sex and site are given for groups that are large enough; whether the model treats other "
            f"groups of {who} equally cannot be determined."
        )
    verb = "are" if " and " in missing else "is"
    return (
        f"{missing.capitalize()} of the {who} {verb} not in the data, so it cannot be determined whether the model "
        f"treats groups of {who} equally."
    )


def characteristics(report: EvaluationReport) -> list[tuple[str, ...]]:
    """What is known of the patients and images (rows) of each split (columns)."""
    texts = {(item.name, item.split): item.text for item in report.data.characteristics}
    return [(name, *(texts.get((name, split), "–") for split in SPLITS)) for name in known(report)]


def small_subgroups(report: EvaluationReport) -> str:
    """The groups that have no scores of their own, with their numbers of images."""
    return ", ".join(f"{group} ({images:,})" for group, images in report.small_subgroups.items())


def versus(model: ModelFacts) -> str:
    """The comparison behind sensitivity and specificity: `pneumonia vs normal`."""
    return f"{model.finding} vs {model.classes[0]}"


def name(score: str, model: ModelFacts) -> str:
    """What the report calls a score."""
    return f"AUC, {versus(model)}" if score == f"auc_{model.finding}" else NAMES[score]


def answer(kind: str, model: ModelFacts) -> str:
    """What is answered, of the curves of risk by coverage."""
    return {"finding": f"{model.finding} or none", "classes": "the most likely class"}[kind]


def point(operating_point: str, model: ModelFacts) -> str:
    """What an operating point is."""
    if operating_point == "argmax":
        return f"the likelier of {model.classes[0]} and {model.finding}"
    return _POINTS[operating_point]


def number(estimate: Estimate, digits: int = 3) -> str:
    """A score with its interval, `0.936 (0.915 to 0.955)`; a dash if it is undefined."""
    if estimate.value is None:
        return "–"
    text = f"{estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def signed(estimate: Estimate) -> str:
    """A difference with its interval, `+0.012 (-0.004 to +0.028)`; a dash if it is undefined."""
    if estimate.value is None:
        return "–"
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def overall(scores: Scores) -> list[tuple[str, Estimate]]:
    """Scores over all classes, in the order of the report."""
    return [(NAMES[score], scores[score]) for score in ("macro_f1", "accuracy", "balanced_accuracy", "loss")]


def of_finding(scores: Scores, finding: str) -> list[tuple[str, Estimate]]:
    """Scores of the finding against the negative class, decided at `argmax`."""
    return [
        ("AUC", scores[f"auc_{finding}"]),
        ("AUC, DeLong interval", scores[f"auc_{finding}_delong"]),
        ("average precision", scores[f"average_precision_{finding}"]),
        *((NAMES[score], scores[score]) for score in ("sensitivity", "specificity", "ppv", "npv")),
    ]


def flow(report: EvaluationReport) -> list[tuple[str, str]]:
    """How many images were found, left out, and kept."""
    data = report.data
    kept = sum(count.images for count in data.counts)
    dropped, unreadable = len(data.leaks.dropped), len(data.unreadable)
    rows = [(f"rows of the table left out: {reason}", f"{count:,}") for reason, count in data.source.left_out.items()]
    return [
        *rows,
        ("images found", f"{kept + dropped + unreadable + data.not_taken:,}"),
        ("unreadable, left out", f"{unreadable:,}"),
        ("left out by subset_size", f"{data.not_taken:,}"),
        ("dropped because a duplicate or the patient is in another split", f"{dropped:,}"),
        ("in the split", f"{kept:,}"),
    ]


def counts(report: EvaluationReport) -> list[tuple[str, ...]]:
    """Images and patients of each class (rows) in each split (columns), and the images of all classes."""
    by_cell = {(count.label, count.split): count for count in report.data.counts}
    rows = []
    for label in report.model.classes:
        cells = [by_cell[label, split] for split in SPLITS]
        rows.append((label, *(f"{cell.images:,} images of {cell.patients:,} patients" for cell in cells)))
    totals = [sum(count.images for count in report.data.counts if count.split == split) for split in SPLITS]
    return [*rows, ("all images", *(f"{total:,}" for total in totals))]


def differences(report: EvaluationReport) -> list[tuple[str, ...]]:
    """Scores on all images of the label audit, and without those of doubtful labels."""
    audit = report.label_audit
    if audit is None:
        return []
    shown = ("macro_f1", "accuracy", f"auc_{report.model.finding}", "sensitivity", "specificity")
    without = audit.without
    return [(name(score, report.model), number(audit.with_all[score]), number(without[score])) for score in shown]


def calibrated(result: SplitResult) -> str:
    """What slope and calibration in the large say, in words."""
    found = result.calibration.finding
    words = [
        _beside(
            found.in_the_large, 0, "On average, probabilities are too high.", "On average, probabilities are too low."
        ),
        _beside(found.slope, 1, "Probabilities are too extreme.", "Probabilities are too moderate."),
    ]
    if None in words:
        words.append(
            f"{'What has no value is undefined' if any(word is not None for word in words) else 'Undefined'}: in these "
            "images, or in too many resamples of them, a threshold tells the two kinds apart without a mistake, or one "
            "kind is missing."
        )
    return " ".join(word for word in words if word) or "Neither differs from perfect by more than chance explains."


def _beside(estimate: Estimate, perfect: float, below: str, above: str) -> str | None:
    """What it means that an interval lies `below` or `above` a value; empty if it includes it, None if undefined."""
    if estimate.low is None or estimate.high is None:
        return None
    return below if estimate.high < perfect else above if estimate.low > perfect else ""


def readers(report: EvaluationReport) -> str:
    """What scores of bacteria and virus can mean at most; empty where no reader gave these labels."""
    # Others' labels may be those of a laboratory.
    return READERS if is_of_kermany(report) and {"bacteria", "virus"} <= set(report.model.classes) else ""


def is_one_image_each(report: EvaluationReport) -> bool:
    """Whether every image counts as a patient of its own, as where the source names no patients."""
    counts = report.data.counts
    alone = sum(count.patients for count in counts) == sum(count.images for count in counts)
    return alone and not report.data.source.synthetic


def source(report: EvaluationReport) -> str:
    """The citation of the dataset, or else its address."""
    return report.data.source.citation or report.data.source.address
