"""Two versions compared answer by answer, in constant memory, each by its own code (see `steps.registry.answers`).

Answers are the same if status, label, decision and operating point are equal, the reasons too but for the last digit
of the numbers in them, and no probability differs by more than `TOLERANCE`. How an image is decoded shows in these.
Heatmaps are not compared. No label of an image is read, so that images of the test split may be compared as well:
nothing is scored.
"""

import csv
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

from cxr.common.names import printable
from cxr.packaging.package import TOLERANCE
from steps.registry.answers import Answerer, Row

log = logging.getLogger("cxr.alike")

EXACT = ("status", "label", "decision", "operating_point")
FIRST = 5  # differing answers that are told in full
_PROBABILITY = "probability_"
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)")
_ROUNDED = 0.01  # relative difference that rounding to three digits can make
_LOG_EVERY_S = 15
_NAME_LENGTH = 60  # characters of a path in a line


@dataclass(frozen=True)
class Question:
    """An image that both versions are asked about: its file, its name in the manifest, its split, an operating point.

    An empty operating point is that of each version.
    """

    file: str
    path: str
    split: str
    point: str = ""


@dataclass
class Outcome:
    """What a comparison has found.

    Attributes:
        images: number of images of each split.
        points: operating points at which images were asked about, besides those of the versions.
        answers: number of pairs of answers.
        differing: number of those that are not the same.
        by_column: how many differ in each respect.
        largest: largest difference of a probability, those that count as the same included; 0 if none was given.
        first: one line on each of the first differing answers.
    """

    images: Counter[str] = field(default_factory=Counter)
    points: list[str] = field(default_factory=list)
    answers: int = 0
    differing: int = 0
    by_column: Counter[str] = field(default_factory=Counter)
    largest: float = 0.0
    first: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether all answers are the same."""
        return not self.differing

    def __str__(self) -> str:
        counts = " and ".join(f"{count:,} {split}" for split, count in self.images.items())
        largest = f"the largest difference of a probability is {f'{self.largest:.1e}' if self.largest else '0'}"
        if self.same:
            return f"same answers to {counts} images; {largest}"
        columns = ", ".join(f"{name} {count:,}" for name, count in self.by_column.most_common())
        asked = f"{self.answers:,} answers to {counts} images"
        return f"{self.differing:,} of {asked} differ ({columns}); {largest}"


def compare(old: Answerer, new: Answerer, questions: Iterable[Question], size: int, table: TextIO) -> Outcome:
    """Ask two versions the same questions, `size` at a time, and write the answers that differ to `table`, as CSV."""
    outcome, last = Outcome(), time.monotonic()
    writer: csv.DictWriter | None = None
    for group in _same_point(questions, size):
        files, point = [question.file for question in group], group[0].point
        for question, ours, theirs in zip(group, old.answer(files, point), new.answer(files, point), strict=True):
            row = _add(outcome, question, ours, theirs)
            if row is None:
                continue
            if writer is None:
                writer = csv.DictWriter(table, list(row), extrasaction="ignore", lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)
        if time.monotonic() - last > _LOG_EVERY_S:
            log.info("compared %d answers, %d differ", outcome.answers, outcome.differing)
            last = time.monotonic()
    return outcome


def _same_point(questions: Iterable[Question], size: int) -> Iterable[list[Question]]:
    """The questions in order, in groups of at most `size` that are about one operating point."""
    group: list[Question] = []
    for question in questions:
        if group and (len(group) == size or group[0].point != question.point):
            yield group
            group = []
        group.append(question)
    if group:
        yield group


def _add(outcome: Outcome, question: Question, old: Row, new: Row) -> dict[str, Any] | None:
    """Count a pair of answers; returns its row for the table if they differ."""
    outcome.answers += 1
    if question.point:
        if question.point not in outcome.points:
            outcome.points.append(question.point)
    else:
        outcome.images[question.split] += 1
    what, difference = differences(old, new)
    outcome.largest = max(outcome.largest, difference)
    if not what:
        return None
    outcome.differing += 1
    outcome.by_column.update(what)
    if len(outcome.first) < FIRST:
        outcome.first.append(_told(question, what, old, new))
    told = {"split": question.split, "path": question.path, "asked": question.point, "differ": " ".join(what)}
    told["difference"] = f"{difference:.3g}"
    names = list(dict.fromkeys([*old, *new]))
    return told | {f"{side}_{name}": row.get(name) for name in names for side, row in (("old", old), ("new", new))}


def differences(old: Row, new: Row) -> tuple[list[str], float]:
    """In which respects two answers to one image differ, and the largest difference of a probability."""
    what = [name for name in EXACT if old.get(name) != new.get(name)]
    if not _same_words(old.get("reasons") or "", new.get("reasons") or ""):
        what.append("reasons")
    largest, equal = 0.0, True
    for name in (name for name in old if name.startswith(_PROBABILITY)):
        ours, theirs = old[name], new.get(name)
        if ours is None or theirs is None:
            equal &= ours is theirs
            continue
        largest = max(largest, abs(ours - theirs))
        equal &= abs(ours - theirs) <= TOLERANCE
    if not equal:
        what.append("probabilities")
    if set(old) != set(new):
        what.append("columns")
    return what, largest


def _same_words(old: str, new: str) -> bool:
    """Whether two texts are equal but for the rounding of numbers in them."""
    ours, theirs = _NUMBER.split(old), _NUMBER.split(new)  # words and numbers in turn
    return ours[::2] == theirs[::2] and all(
        math.isclose(float(a), float(b), rel_tol=_ROUNDED) for a, b in zip(ours[1::2], theirs[1::2], strict=True)
    )


def _told(question: Question, what: list[str], old: Row, new: Row) -> str:
    """One line on a pair of answers that differ."""
    name = printable(question.path)
    name = name if len(name) <= _NAME_LENGTH else f"...{name[-_NAME_LENGTH:]}"
    at = f" at {question.point}" if question.point else ""
    return f"{name}{at} ({', '.join(what)}): {_in_short(old)} -> {_in_short(new)}"


def _in_short(row: Row) -> str:
    numbers = " ".join(
        f"{name.removeprefix(_PROBABILITY)} {value:.4f}"
        for name, value in row.items()
        if name.startswith(_PROBABILITY) and value is not None
    )
    reasons = str(row.get("reasons") or "")[:100]
    words = [str(row.get("status")), str(row.get("decision") or row.get("label") or ""), numbers, reasons]
    return ", ".join(word for word in words if word)
