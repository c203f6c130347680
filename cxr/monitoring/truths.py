"""True classes of images that have been answered, once they are known, and the scores of these answers."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
from numpy import ndarray

from cxr.errors import CxrError
from cxr.evaluation.class_mapping import ClassMapping
from cxr.evaluation.external import defined_scores
from cxr.evaluation.scores import Sample, named
from cxr.monitoring.reference import Reference
from cxr.monitoring.results import TruthScores
from cxr.serving.probabilities import NEGATIVE
from cxr.serving.service import ERROR
from cxr.settings.monitoring import MonitorSettings

# Least number of patients of each class that a score is about, or it raises no alarm: resamples of a few hardly vary,
# so that its interval is far too narrow or has no width at all. Of two images ranked wrongly, the AUC is 0 (0 to 0).
OF_CLASS = 10
_OF_PICTURE = ("brightness", "width", "height")  # columns by which answers to one picture agree, whoever computed them
_SAME = 0.01  # largest difference in these
_ROW = "truth_row"  # number of the row in the table of truths, -1 without one


@dataclass(frozen=True)
class Truths:
    """True classes of some answers.

    Attributes:
        label: true class by row of the table.
        patient: patient by row of the table; empty where it is not told.
        mapping: classes of the model and those of the table.
        finding: what all classes but the first have in common.
        seed: of the resamples behind the intervals.
        unmatched: number of rows of images that are not among the answers.
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
    key = next((name for name in ("path", "request_id") if name in table and name in rows), None)
    if key is None or "label" not in table:
        expected = " or ".join(name for name in ("path", "request_id") if name in rows)
        raise CxrError(f"truth={file}: expected a column label and a column {expected}, got {', '.join(table.columns)}")
    _check_filled(table, [key, *(["row"] if key == "request_id" and "row" in table else [])], file)
    label = _labels(table, file, reference)
    places = _by_path(rows, table, file) if key == "path" else _by_request(rows, table, file)
    matched = rows.assign(**{_ROW: places})
    known = sorted(set(places) - {-1})
    if not known:
        names = [key, "row"] if key == "request_id" and "row" in table and "row" in rows else [key]
        raise CxrError(
            f"truth={file}: none of its {len(table)} images is among the answers; its column {key} begins with "
            f"{_first(table[names])}, that of the answers with {_first(rows[names].dropna())}"
        )
    mapping = ClassMapping.of(tuple(reference.classes), _classes(label, reference))
    patient = table["patient"] if "patient" in table else pd.Series("", table.index)
    patient = patient.where(patient != "", "image " + table.index.astype(str))
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


def _check_filled(table: pd.DataFrame, names: list[str], file: Path) -> None:
    """Raise `CxrError` for a row that names no image."""
    for name in names:
        empty = int((table[name].str.strip() == "").sum())
        if empty:
            raise CxrError(
                f"truth={file}: {empty} of its {len(table)} rows have no {name}; give them one, or leave them out"
            )


def _first(named: pd.DataFrame) -> str:
    """The first name of an image, with its row of the request if there is one."""
    if named.empty:
        return "nothing"
    name, *row = named.iloc[0]
    return f"{name!r} (row {int(float(row[0]))})" if row else repr(name)


def _labels(table: pd.DataFrame, file: Path, reference: Reference) -> pd.Series:
    allowed = list(dict.fromkeys([*reference.classes, reference.finding]))
    unknown = sorted(set(table["label"]) - set(allowed))
    if unknown:
        raise CxrError(
            f"truth={file}: the label {unknown[0]!r} is none of {', '.join(allowed)}; rename it in the table"
        )
    return table["label"]


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


def _by_path(rows: pd.DataFrame, table: pd.DataFrame, file: Path) -> list[int]:
    """The row of the table whose path each answer's path ends with; -1 without one."""
    wanted: dict[tuple[str, ...], int] = {}
    for place, path in enumerate(table["path"]):
        parts = PurePath(path).parts
        if not parts:  # every path would end with it
            raise CxrError(f"truth={file}: {path!r} names no file; give a path, or its end")
        if wanted.setdefault(parts, place) != place and table["label"].iat[wanted[parts]] != table["label"].iat[place]:
            raise CxrError(f"truth={file}: two labels for {path}")
    lengths = sorted({len(parts) for parts in wanted}, reverse=True)
    places: list[int] = []
    named_by: dict[int, str] = {}
    for path in rows["path"]:
        parts = PurePath(path).parts if isinstance(path, str) else ()  # those of a service have none
        place = next((wanted[parts[-n:]] for n in lengths if n <= len(parts) and parts[-n:] in wanted), -1)
        if place >= 0 and named_by.setdefault(place, path) != path:
            raise CxrError(
                f"truth={file}: {table['path'].iat[place]} can be {named_by[place]} or {path}; give more of the path"
            )
        places.append(place)
    return places


def _by_request(rows: pd.DataFrame, table: pd.DataFrame, file: Path) -> list[int]:
    """The row of the table for each answer, by request and, if the table has it, row of the request; -1 without one."""
    with_row = "row" in table and "row" in rows
    numbers = _numbers(table, file) if with_row else [0] * len(table)
    keys = list(zip(table["request_id"], numbers, strict=True))
    for (request, number), count in Counter(keys).items():
        if count > 1:
            raise CxrError(f"truth={file}: {request}{f' row {number}' if with_row else ''} is there more than once")
    wanted = {key: place for place, key in enumerate(keys)}
    asked = rows["row"].fillna(-1).astype(int) if with_row else [0] * len(rows)  # predict answers to no request
    places = [wanted.get(answer, -1) for answer in zip(rows["request_id"], asked, strict=True)]
    _check_repeated(rows, pd.Series(places, rows.index), table, file, with_row)
    return places


def _numbers(table: pd.DataFrame, file: Path) -> list[int]:
    """The column `row` of a table: the number of each image in its request."""
    numbers = pd.to_numeric(table["row"], errors="coerce")
    bad = table["row"][~(numbers.ge(0) & (numbers % 1 == 0))]
    if len(bad):
        raise CxrError(f"truth={file}: row {bad.iat[0]!r}: expected a whole number, 0 for the first image of a request")
    return [int(number) for number in numbers]


def _check_repeated(rows: pd.DataFrame, places: pd.Series, table: pd.DataFrame, file: Path, with_row: bool) -> None:
    """Answers may have the truth in common if they are to one picture: clients and proxies send a request again.

    Raises:
        CxrError: a request had several pictures, or its ID is that of requests with other pictures.
    """
    repeated = places[places.ge(0) & places.duplicated(keep=False)]
    if repeated.empty:
        return
    taken = rows.loc[repeated.index]
    if not with_row and "row" in rows:
        several = taken.groupby(repeated)["row"].nunique() > 1
        if several.any():
            request = table["request_id"].iat[several.idxmax()]
            raise CxrError(
                f"truth={file}: request {request} had several images; add a column row, 0 for the first of them"
            )
    seen = taken[list(_OF_PICTURE)].astype(float).groupby(repeated)  # of one that could not be read: NaN, left out
    other = ((seen.max() - seen.min()) > _SAME).any(axis=1)
    if other.any():
        request = table["request_id"].iat[other.idxmax()]
        raise CxrError(
            f"truth={file}: the ID {request} is that of several requests with different images, and names none of "
            "them; leave it out, and let clients send another X-Request-ID with each request, or none"
        )
