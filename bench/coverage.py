"""How often do the 95 % intervals contain the truth? A simulation of studies whose truth is known.

    python -m bench.coverage

Every study draws patients with one to six images each, whose images resemble each other, and a classifier that is a
little over-confident. The truth of each score is its value on a very large study. Writes `bench/coverage.csv`; and
`bench/coverage_of_shares.csv` for shares near 1 of patients with one image each, which need no simulation.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
from numpy import ndarray
from scipy.stats import binom

from cxr.evaluation import bootstrap, calibration, decision_curve, recalibration, risk_coverage, scores
from cxr.evaluation.scores import Sample
from cxr.serving.probabilities import softmax

FILE, SHARES_FILE = (Path(__file__).parent / name for name in ("coverage.csv", "coverage_of_shares.csv"))
NEAR_1 = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
CLASSES = ("normal", "bacteria", "virus")
SHARES = (0.4, 0.35, 0.25)  # of the patients, by class
IMAGES = ([1, 2, 3, 6], [0.6, 0.2, 0.1, 0.1])  # of a patient, and their shares
ALIKE = 0.6  # share of the variance that images of a patient have in common
SIGNAL, OVERCONFIDENCE = 1.6, 1.3
BINNED = ("ece", "adaptive_ece")  # whose interval is the basic one
MANY = 200_000  # patients of the study that tells the truth


def study(rng: np.random.Generator, patients: int) -> tuple[ndarray, ndarray, ndarray]:
    """Labels (n,), patients (n,) and probabilities (n, 3) of one study."""
    of_patient = rng.choice(len(CLASSES), patients, p=SHARES)
    owner = np.repeat(np.arange(patients), rng.choice(IMAGES[0], patients, p=IMAGES[1]))
    labels = of_patient[owner]
    shared, own = rng.normal(size=(patients, 3))[owner], rng.normal(size=(len(owner), 3))
    logits = SIGNAL * np.eye(3)[labels] + np.sqrt(ALIKE) * shared + np.sqrt(1 - ALIKE) * own
    return labels, owner, softmax(OVERCONFIDENCE * SIGNAL * logits)


def measures(labels: ndarray, probabilities: ndarray, weights: ndarray) -> dict[str, ndarray]:
    """Scores by name, of shape (R,)."""
    sample = Sample(labels, labels, CLASSES, weights)
    truth, score = labels != 0, 1 - probabilities[:, 0]
    names = ("accuracy", "macro_f1", "auc_pneumonia", "sensitivity", "specificity", "ppv")
    found = scores.resampled(sample, probabilities)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    block = weights.astype(np.float32)
    return {
        **{name: found[name] for name in names},
        "nll": found["loss"],
        "ece": calibration.expected_calibration_error(confidence, right.astype(float), block),
        "adaptive_ece": calibration.adaptive_calibration_error(confidence, right.astype(float), block),
        **recalibration.resample(truth, score, weights),
        "net_benefit_0.2": decision_curve.resample(truth, score, np.array([0.2]), weights)["model"][:, 0],
        "aurc": risk_coverage.resample(confidence, ~right, weights)["area"],
    }


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--studies", type=int, default=400)
    made.add_argument("--patients", type=int, default=350, help="of a study")
    made.add_argument("--resamples", type=int, default=300)
    given = made.parse_args()
    started = time.perf_counter()
    labels, _, probabilities = study(np.random.default_rng(0), MANY)
    true = {name: float(v[0]) for name, v in measures(labels, probabilities, np.ones((1, len(labels)))).items()}
    by_patient, by_image = (dict.fromkeys(true, 0) for _ in range(2))
    for number in range(given.studies):
        labels, owner, probabilities = study(np.random.default_rng([1, number]), given.patients)
        once = np.ones((1, len(labels)), np.uint8)
        for unit, inside in ((owner, by_patient), (np.arange(len(labels)), by_image)):
            weights = np.concatenate([once, bootstrap.patient_weights(unit, number, given.resamples)])
            for name, values in measures(labels, probabilities, weights).items():
                found = bootstrap.basic(values[0], values[1:]) if name in BINNED else scores.estimate(values)
                inside[name] += (
                    found.low is not None and found.high is not None and found.low <= true[name] <= found.high
                )
    rows = [
        {"score": name, "truth": round(true[name], 4), "coverage": by_patient[name] / given.studies,
         "coverage_if_images_were_drawn": by_image[name] / given.studies}
        for name in true
    ]  # fmt: skip
    print(f"{given.studies} studies of {given.patients} patients, {time.perf_counter() - started:.0f} s\n")
    _write(FILE, rows)
    _write(SHARES_FILE, [row for patients in (40, 125) for row in near_1(patients)])


def near_1(patients: int) -> list[dict[str, float]]:
    """How often the intervals of a share of so many patients contain it, and how often percentiles alone would."""
    weights = bootstrap.patient_weights(np.arange(patients), 0)
    inside = np.zeros((2, len(NEAR_1)))
    for right in range(patients + 1):
        resampled = bootstrap.mean((np.arange(patients) < right).astype(float), weights)
        found = right / patients, resampled
        for row, interval in enumerate((bootstrap.of_share(*found, patients), bootstrap.percentile(*found))):
            contains = [interval.low <= share + 1e-9 and share - 1e-9 <= interval.high for share in NEAR_1]
            inside[row] += binom.pmf(right, patients, NEAR_1) * contains
    return [
        {
            "patients": patients,
            "share": share,
            "coverage": round(float(ours), 4),
            "coverage_of_percentiles": round(float(theirs), 4),
        }
        for share, ours, theirs in zip(NEAR_1, *inside, strict=True)
    ]


def _write(file: Path, rows: list[dict[str, float]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(file.read_text())


if __name__ == "__main__":
    main()
