"""True classes of images that have been answered, once they are known, and the scores of these answers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from cxr.errors import CxrError
from cxr.evaluation.class_mapping import ClassMapping
from cxr.evaluation.external import defined_scores
from cxr.evaluation.scores import Sample, named
from cxr.monitoring import matching
from cxr.monitoring.reference import Reference
from cxr.monitoring.results import TruthScores
from cxr.serving.probabilities import NEGATIVE
from cxr.serving.service import ERROR
from cxr.settings.monitoring import MonitorSettings

# Least number of patients of each class that a score is about, or it raises no alarm: resamples of a few hardly vary,
# so that its interval is far too narrow or has no width at all. Of two images ranked wrongly, the AUC is 0 (0 to 0).
OF_CLASS = 10
_ROW = "truth_row"  # number of the row in the table of truths, -1 without one


@dataclass(frozen=True)
class Truths:
    """True classes of some answers.

    Attributes:
        label: true class by image of the table.
        patient: patient by image of the table, or an image for itself where none is told.
        mapping: classes of the model and those of the table.
        finding: what all classes but the first have in common.
        seed: of the resamples behind the intervals.
        unmatched: number of images of the table that are not among the answers.
    """

    label: pd.Series
    patient: pd.Series
    mapping: ClassMapping
    finding: str
    seed: int
    unmatched: int

    def scores(self, rows: pd.DataFrame, settings: MonitorSettings) -> TruthScores | None:
        """Scores of the answers in `rows` that have a truth; None if there are none.

        Each is held against its limit if they are of `window_images` patients or more, and `OF_CLASS` or more of each
        class that it is about.
        """
        known = rows[(rows[_ROW] >= 0) & (rows["status"] != ERROR)]
        if known.empty:
            return None
        served = known[[f"probability_{name}" for name in self.mapping.model]].to_numpy(np.float64)
        index = {name: i for i, name in enumerate(self.mapping.labels)}
        labels = self.label.loc[known[_ROW]].map(index).to_numpy(np.int64)
        patients = self.patient.loc[known[_ROW]].to_numpy().astype(str)
        sample = Sample.from_labels(labels, patients, self.mapping.labels, self.seed, self.finding)
        found = defined_scores(sample, self.mapping.probabilities(served))
        alarms, not_judged = [], {}
        for limited, least in settings.limits.scores.model_dump().items():
            name = named(limited, self.finding)
            score = found[name]
            if least is None:
                continue
            if too_few := self._too_few(limited, labels, patients, settings.window_images):
                not_judged[name] = too_few
            elif score.high is not None and score.high < least:
                value = f"{score.value:.3f} ({score.low:.3f} to {score.high:.3f})"
                alarms.append(f"{name}: {value}, at least {least:g}")
        return TruthScores(
            images=len(known),
            patients=len(np.unique(patients)),
            by_class={name: int((labels == i).sum()) for name, i in index.items()},
            scores=found,
            alarms=alarms,
            not_judged=not_judged,
        )

    def _too_few(self, score: str, labels: ndarray, patients: ndarray, least: int) -> str:
        """Why these images are too few to hold a score against its limit; empty if they are enough."""
        if (count := len(np.unique(patients))) < least:
            return f"patients with a truth: {count}, fewer than {least}"
        negative, finding = {self.mapping.labels[NEGATIVE]: labels == NEGATIVE}, {self.finding: labels != NEGATIVE}
        about = {"accuracy": {}, "sensitivity": finding, "specificity": negative, "auc_finding": negative | finding}
        classes = {name: labels == i for i, name in enumerate(self.mapping.labels)}  # of means over all of them
        for name, images in about.get(score, classes).items():
            if (count := len(np.unique(patients[images]))) < OF_CLASS:
                return f"patients with the truth {name}: {count}, fewer than {OF_CLASS}"
        return ""


def attach(rows: pd.DataFrame, file: Path, reference: Reference, seed: int) -> tuple[pd.DataFrame, Truths]:
    """Read a table of truths; returns `rows` with the number of its row beside each answer, and the truths.

    It has a column `label`, and names images by `path` (whole, or its end) or by `request_id`, with `row` where a
    request had several images. A column `patient` makes intervals those of patients.

    Raises:
        CxrError: the table cannot be read or used, or none of its images is among the answers.
    """
    table = _read(file)
    names = matching.key_columns(rows, table)
    if not names or "label" not in table:
        expected = " or ".join(name for name in ("path", "request_id") if name in rows)
        raise CxrError(f"truth={file}: expected a column label and a column {expected}, got {', '.join(table.columns)}")
    _check_labels(table, file, reference)
    table, places = matching.match(rows, table, file)
    known = set(places) - {-1}
    if not known:
        raise CxrError(
            f"truth={file}: none of its {len(table)} images is among the answers; its column {names[0]} begins with "
            f"{_first(table[names])}, that of the answers with {_first(rows[names].dropna())}"
        )
    label = table["label"]
    mapping = ClassMapping.of(tuple(reference.classes), _classes(label, reference))
    patient = table["patient"] if "patient" in table else pd.Series("", table.index)
    patient = patient.where(patient != "", "image " + table.index.astype(str))
    matched = rows.assign(**{_ROW: places})
    return matched, Truths(label, patient, mapping, reference.finding, seed, len(table) - len(known))


def _read(file: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # of the parser and of the encoding too
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CxrError(f"truth={file}: cannot be read ({reason}); give a CSV table in UTF-8") from None
    if table.empty:
        raise CxrError(f"truth={file}: the table is empty")
    if not isinstance(table.index, pd.RangeIndex):  # pandas has taken the first cell of each row for its name
        raise CxrError(f"truth={file}: its rows have more cells than its header; give each column a name, or remove it")
    return table


def _first(named: pd.DataFrame) -> str:
    """The first name of an image, with its row of the request if there is one."""
    if named.empty:
        return "nothing"
    name, *row = named.iloc[0]
    return f"{name!r} (row {int(float(row[0]))})" if row else repr(name)


def _check_labels(table: pd.DataFrame, file: Path, reference: Reference) -> None:
    allowed = list(dict.fromkeys([*reference.classes, reference.finding]))
    unknown = sorted(set(table["label"]) - set(allowed))
    if unknown:
        raise CxrError(
            f"truth={file}: the label {unknown[0]!r} is none of {', '.join(allowed)}; rename it in the table"
        )


def _classes(label: pd.Series, reference: Reference) -> tuple[str, ...]:
    """Classes of the table: those of the model, or the negative one and the finding where only these are told."""
    negative, *kinds = reference.classes
    if reference.finding not in kinds and reference.finding in set(label):
        if set(label) & set(kinds):
            raise CxrError(
                f"truth: some labels are {reference.finding} and others one of {', '.join(kinds)}; use one or the other"
            )
        return negative, reference.finding
    return tuple(reference.classes)
