"""Numbers and notices as the report and the model card write them."""

from typing import Any

INTENDED_USE = (
    "Research and teaching: telling normal chest X-rays of small children from those with pneumonia, and bacterial "
    "from viral pneumonia. It is no medical device, was not tested in any clinic and must not be used for diagnosis."
)
LIMITS = (
    "Trained and tested on one hospital's children of one to five years: results do not carry over to adults, other "
    "hospitals, other machines, or bedside pictures.",
    "The set was collected from children whose pictures were taken in routine care; the shares of normal and pneumonia "
    "in it are not those of any ward. Predictive values must be read at the prevalence of the place of use.",
    "Labels come from readers of the pictures, not from laboratory tests; bacterial and viral pneumonia look alike, "
    "and errors of the labels are errors of these scores.",
    "Age, sex and origin of the children are not in the data: whether the model treats groups of children alike cannot "
    "be told from it.",
    "Only normal and pneumonia exist for the model: any other finding gets one of its answers all the same.",
)
SYNTHETIC = "SYNTHETIC DATA: drawn phantoms, no patients. These scores say nothing about X-rays."

NAMES = {
    "loss": "loss (cross entropy, nats)",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc_pneumonia": "AUC, pneumonia against normal",
    "average_precision_pneumonia": "average precision, pneumonia",
    "ece": "expected calibration error (15 bins)",
    "adaptive_ece": "the same, bins of equal count",
    "brier": "Brier score (0 to 2)",
    "nll": "negative log-likelihood, nats",
}
POINTS = {
    "argmax": "the likeliest class decides",
    "youden": "largest sensitivity + specificity on validation",
    "sensitive": "the sensitivity asked for, with the highest specificity, on validation",
}


def number(estimate: dict[str, float | None] | None, digits: int = 3) -> str:
    """A score with its interval: `0.936 (0.915 to 0.955)`; a dash where it does not exist."""
    if estimate is None or estimate["value"] is None:
        return "–"
    text = f"{estimate['value']:.{digits}f}"
    if estimate.get("low") is None:
        return text
    return f"{text} ({estimate['low']:.{digits}f} to {estimate['high']:.{digits}f})"


def signed(estimate: dict[str, float | None]) -> str:
    """A difference with its interval: `+0.012 (-0.004 to +0.028)`."""
    if estimate["value"] is None:
        return "–"
    return f"{estimate['value']:+.3f} ({estimate['low']:+.3f} to {estimate['high']:+.3f})"


def overall(scores: dict[str, dict]) -> list[tuple[str, dict]]:
    """Scores over all classes, in the order of the report."""
    wanted = ("macro_f1", "accuracy", "balanced_accuracy", "loss")
    return [(NAMES[name], scores[name]) for name in wanted]


def pneumonia(scores: dict[str, dict]) -> list[tuple[str, dict]]:
    """Scores of pneumonia against normal, by the likeliest class."""
    found = [("AUC", scores["auc_pneumonia"]), ("AUC, interval after DeLong", scores["auc_pneumonia_delong"])]
    found.append(("average precision", scores["average_precision_pneumonia"]))
    return found + [(NAMES[name], scores[name]) for name in ("sensitivity", "specificity", "ppv", "npv")]


def flow(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """How many images came in, what was left out, and where the others went."""
    data = facts["data"]
    leaks = data["leaks"]
    kept = sum(row["images"] for row in data["counts"])
    dropped = len(leaks["dropped"])
    lines = [
        ("images found", f"{kept + dropped + len(data['unreadable']) + data['not_taken']:,}"),
        ("unreadable, left out", f"{len(data['unreadable']):,}"),
        ("left out by subset_size", f"{data['not_taken']:,}"),
        ("duplicates and patients across parts, dropped from training", f"{dropped:,}"),
        ("in the split", f"{kept:,}"),
    ]
    return lines


def counts(facts: dict[str, Any]) -> list[tuple[str, ...]]:
    """Images and patients of each class (rows) in each part (columns), and of all."""
    found = {(row["label"], row["split"]): (row["images"], row["patients"]) for row in facts["data"]["counts"]}
    parts = ("train", "val", "test")
    rows = []
    for name in facts["model"]["classes"]:
        rows.append((name, *(_images(*found[name, part]) for part in parts)))
    total = {part: [sum(n) for n in zip(*(found[k] for k in found if k[1] == part), strict=True)] for part in parts}
    return [*rows, ("all images", *(f"{total[part][0]:,}" for part in parts))]


def _images(images: int, patients: int) -> str:
    return f"{images:,} images of {patients:,} patients"
