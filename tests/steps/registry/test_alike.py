"""Answers are the same or told apart: in which respect, by how much, and which came first; in constant memory."""

import csv
import io
import os
import tracemalloc
from pathlib import Path

import pytest

from steps.registry.alike import FIRST, Question, compare, differences

OK = {
    "label": "virus",
    "probability_normal": 0.2,
    "probability_virus": 0.8,
    "operating_point": "argmax",
    "decision": "pneumonia",
    "status": "ok",
    "reasons": "",
}
NEAR = "undecided (probability of pneumonia 0.547, between 0.4 and 0.6)"


class Answers:
    """Stands for a version: gives `row` with what `changed` says for some paths, and notes what it was asked."""

    def __init__(self, changed=None, row=None):
        self.changed, self.row, self.asked = changed or {}, row or OK, []

    def answer(self, files, point):
        self.asked = [*self.asked, (len(files), point)][-5:]
        return [self.row | self.changed.get(file, {}) for file in files]


def ask(count, split="validation", point=""):
    return [Question(f"/{number}", f"{number}.png", split, point) for number in range(count)]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({}, []),
        ({"probability_normal": 0.20005}, []),
        ({"probability_normal": 0.2002}, ["probabilities"]),
        ({"probability_normal": None}, ["probabilities"]),
        ({"probability_normal": float("nan")}, ["probabilities"]),
        ({"label": "normal"}, ["label"]),
        ({"status": "refer", "decision": None, "reasons": NEAR}, ["status", "decision", "reasons"]),
        ({"operating_point": "youden"}, ["operating_point"]),
        ({"more": 1}, ["columns"]),
    ],
)
def test_in_which_respects_two_answers_differ(change, what):
    assert differences(OK, OK | change)[0] == what


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (NEAR, True),
        (NEAR.replace("0.547", "0.548"), True),
        (NEAR.replace("0.6", "0.65"), False),
        (NEAR.replace("undecided", "near the threshold"), False),
        (f"{NEAR}; blank", False),
        ("", False),
    ],
)
def test_numbers_in_reasons_may_be_rounded_otherwise(words, same):
    old = OK | {"reasons": NEAR}
    assert (differences(old, old | {"reasons": words})[0] == []) == same


def test_same_answers_are_counted_and_the_largest_difference_is_told():
    table = io.StringIO()
    asked = [*ask(5), *ask(3, "test"), *ask(2, point="youden")]
    old, new = Answers(), Answers({"/1": {"probability_normal": 0.20004}})
    outcome = compare(old, new, asked, 4, table)
    assert outcome.same and outcome.answers == 10 and outcome.points == ["youden"] and not table.getvalue()
    assert (
        str(outcome)
        == "same answers to 5 validation and 3 test images; the largest difference of a probability is 4.0e-05"
    )
    assert old.asked == new.asked == [(4, ""), (4, ""), (2, "youden")]


def test_differing_answers_are_told_in_full_in_a_table_and_the_first_of_them_in_lines():
    table = io.StringIO()
    new = Answers({f"/{number}": {"status": "refer", "decision": None, "reasons": NEAR} for number in range(2, 9)})
    outcome = compare(Answers(), new, [*ask(10), *ask(3, point="youden")], 4, table)
    assert not outcome.same and outcome.differing == 8
    assert str(outcome) == (
        "8 of 13 answers to 10 validation images differ (status 8, decision 8, reasons 8); "
        "the largest difference of a probability is 0"
    )
    assert len(outcome.first) == FIRST
    assert outcome.first[0] == (
        "2.png (status, decision, reasons): ok, pneumonia, normal 0.2000 virus 0.8000 -> "
        f"refer, virus, normal 0.2000 virus 0.8000, {NEAR}"
    )
    rows = list(csv.DictReader(io.StringIO(table.getvalue())))
    assert [row["path"] for row in rows] == [*(f"{number}.png" for number in range(2, 9)), "2.png"]
    assert rows[0]["old_status"] == "ok" and rows[0]["new_status"] == "refer" and rows[-1]["asked"] == "youden"
    assert rows[0]["differ"] == "status decision reasons" and rows[0]["new_reasons"] == NEAR


def test_memory_does_not_grow_with_the_number_of_images():
    def peak(count):
        questions = (Question(f"/{number}", f"{number}.png", "validation") for number in range(count))
        tracemalloc.start()
        with Path(os.devnull).open("w") as nowhere:
            outcome = compare(Answers(), Answers(row=OK | {"status": "refer"}), questions, 32, nowhere)
        assert outcome.differing == count
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(20_000) < peak(500) + 100_000
