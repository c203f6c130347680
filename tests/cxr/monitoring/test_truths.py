"""Truths beside answers of two sources, and times at the end of the calendar."""

import re

import numpy as np
import pandas as pd
import pytest

from cxr.errors import CxrError
from cxr.monitoring import table, truths
from cxr.monitoring.reference import Reference
from tests.helpers import settings_with


@pytest.fixture
def reference() -> Reference:
    return Reference.model_construct(classes=["normal", "pneumonia"], finding="pneumonia")


@pytest.mark.parametrize("key", ["path", "request_id"])
def test_answers_of_predict_and_of_a_service_in_one_folder(tmp_path, reference, key):
    predicted = pd.DataFrame({"path": ["a/1.png", "a/2.png"]})
    logged = pd.DataFrame({"request_id": ["r1", "r1"], "row": [0, 1]})
    rows = pd.concat([predicted, logged], ignore_index=True)
    (predicted if key == "path" else logged).assign(label="normal").to_csv(tmp_path / "truth.csv", index=False)
    matched, found = truths.attach(rows, tmp_path / "truth.csv", reference, 0)
    assert matched["truth_row"].tolist() == ([0, 1, -1, -1] if key == "path" else [-1, -1, 0, 1])
    assert found.unmatched == 0


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("path,label\na/1.png,normal\n,pneumonia\n ,normal\n", "2 of its 3 rows have no path; give them one, or leave"),
        ("path,label\n.,normal\n", "'.' names no file; give a path, or its end"),
        ("request_id,label\n,normal\n", "1 of its 1 rows have no request_id; give them one"),
        ("request_id,row,label\nr1,0,normal\nr1,,normal\n", "1 of its 2 rows have no row; give them one"),
        ("path,label\na/1.png,normal,\n", "its rows have more cells than its header; give each column a name"),
        ("path,label\nnan,normal\n", "its column path begins with 'nan', that of the answers with 'a/1.png'"),
    ],
)
def test_a_truth_that_names_no_image_is_refused_in_one_line(tmp_path, reference, table, words):
    """Taken as it stands, it would be that of every answer without a path or a request."""
    logged = pd.DataFrame({"request_id": ["r1", "r2"], "row": [0, 0]})
    rows = pd.concat([logged, pd.DataFrame({"path": ["a/1.png"]})], ignore_index=True)
    (tmp_path / "truth.csv").write_text(table)
    with pytest.raises(CxrError, match=re.escape(words)):
        truths.attach(rows, tmp_path / "truth.csv", reference, 0)


def logged(*answers: tuple[str, int, float], status: str = "ok") -> pd.DataFrame:
    """Answers of a service, each with its request, row and brightness."""
    rows = pd.DataFrame(answers, columns=["request_id", "row", "brightness"])
    return rows.assign(width=640.0, height=480.0, status=status)


@pytest.mark.parametrize("table", ["request_id,row,label\nr1,0,normal\nr2,1,normal\n", "request_id,label\nr1,normal\n"])
def test_a_request_that_was_sent_again_takes_its_truth_again(tmp_path, reference, table):
    """A client or proxy that repeats a POST keeps its X-Request-ID; the first picture may have been cut off."""
    failed = logged(("r1", 0, np.nan), status="error").assign(width=np.nan, height=np.nan)
    again = logged(("r1", 0, 120.0), ("r2", 0, 99.0), ("r2", 1, 80.0), ("r1", 0, 120.0), ("r2", 1, 80.0))
    predicted = pd.DataFrame({"path": ["a/1.png"]})
    rows = pd.concat([failed, again, predicted], ignore_index=True)
    (tmp_path / "truth.csv").write_text(table)
    matched, found = truths.attach(rows, tmp_path / "truth.csv", reference, 0)
    other = 1 if "row" in table else -1
    assert matched["truth_row"].tolist() == [0, 0, -1, other, 0, other, -1] and found.unmatched == 0


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("request_id,label\nr2,normal\n", "request r2 had several images; add a column row, 0 for the first of them"),
        ("request_id,row,label\nr1,0,normal\n", "the ID r1 is that of several requests with different images"),
        ("request_id,label\nr1,normal\n", "the ID r1 is that of several requests with different images"),
        ("request_id,row,label\nr1,0.5,normal\n", "row '0.5': expected a whole number, 0 for the first"),
        ("request_id,row,label\nr1,first,normal\n", "row 'first': expected a whole number, 0 for the first"),
        ("request_id,row,label\nr1,-1,normal\n", "row '-1': expected a whole number, 0 for the first"),
        ("request_id,row,label\nr1,0,normal\nr1,0.0,pneumonia\n", "two labels for r1 row 0.0, normal and pneumonia;"),
        ("request_id,row,label\nr2,2,normal\n", "begins with 'r2' (row 2), that of the answers with 'r1' (row 0)"),
        ("request_id,label\nnan,normal\n", "its column request_id begins with 'nan', that of the answers with 'r1'"),
    ],
)
def test_an_id_of_several_images_is_told_as_such(tmp_path, reference, table, words):
    answers = logged(("r1", 0, 120.0), ("r1", 0, 90.0), ("r2", 0, 99.0), ("r2", 1, 80.0))
    rows = pd.concat([answers, pd.DataFrame({"path": ["a/1.png"]})], ignore_index=True)
    (tmp_path / "truth.csv").write_text(table)
    with pytest.raises(CxrError, match=re.escape(words)):
        truths.attach(rows, tmp_path / "truth.csv", reference, 0)


def scored(tmp_path, reference, normal: int, pneumonia: int, *, right: bool, patients: int | None = None):
    """Scores of so many images of each kind, all of which the model takes for what they are, or for the other kind."""
    label = ["normal"] * normal + ["pneumonia"] * pneumonia
    truth = pd.DataFrame({"path": [f"{n}.png" for n in range(len(label))], "label": label})
    if patients:
        truth["patient"] = [f"p{n % patients}" for n in range(len(label))]
    truth.to_csv(tmp_path / "truth.csv", index=False)
    called = 0.9 - 0.8 * ((truth["label"] == "normal") == right)
    rows = truth[["path"]].assign(probability_normal=1 - called, probability_pneumonia=called, status="ok")
    matched, found = truths.attach(rows, tmp_path / "truth.csv", reference, 0)
    limits = {"monitor.limits.scores.accuracy": 0.9, "monitor.limits.scores.sensitivity": 0.9}
    return found.scores(matched, settings_with(limits).monitor)


def test_a_few_truths_are_scored_and_raise_no_alarm(tmp_path, reference):
    """Of two images ranked wrongly the interval has no width, and says nothing about how sure the score is."""
    two = scored(tmp_path, reference, 1, 1, right=False)
    assert (two.scores["auc_pneumonia"].value, two.scores["auc_pneumonia"].high) == (0, 0) and two.alarms == []
    limited = ["accuracy", "balanced_accuracy", "auc_pneumonia", "sensitivity"]
    assert two.not_judged == dict.fromkeys(limited, "patients with a truth: 2, fewer than 30")
    alike = scored(tmp_path, reference, 30, 30, right=False, patients=6)
    assert alike.alarms == [] and set(alike.not_judged.values()) == {"patients with a truth: 6, fewer than 30"}


def test_a_score_is_judged_from_ten_patients_of_each_class_it_is_about(tmp_path, reference):
    nine = scored(tmp_path, reference, 9, 30, right=False)
    too_few = "patients with the truth normal: 9, fewer than 10"
    assert nine.not_judged == dict.fromkeys(["balanced_accuracy", "auc_pneumonia"], too_few)
    assert [line.partition(":")[0] for line in nine.alarms] == ["accuracy", "sensitivity"]
    none = scored(tmp_path, reference, 30, 0, right=True)
    assert none.alarms == [] and none.not_judged["sensitivity"] == "patients with the truth pneumonia: 0, fewer than 10"
    ten = scored(tmp_path, reference, 10, 20, right=False)
    assert ten.not_judged == {} and "auc_pneumonia: 0.000 (0.000 to 0.000), at least 0.8" in ten.alarms
    assert scored(tmp_path, reference, 10, 20, right=True).alarms == []


def test_an_image_that_is_listed_twice_is_one_truth(tmp_path, reference):
    """Unless its labels differ, a list that was joined of two is as good as another."""
    rows = pd.DataFrame({"path": ["x/a/1.png", "./x/a/1.png", "x/2.png"]})
    table = "path,label\na/1.png,normal\n2.png,pneumonia\na//1.png,normal\n3.png,normal\n3.png,normal\n"
    (tmp_path / "truth.csv").write_text(table)
    matched, found = truths.attach(rows, tmp_path / "truth.csv", reference, 0)
    assert matched["truth_row"].tolist() == [0, 0, 1] and found.label.tolist() == ["normal", "pneumonia", "normal"]
    assert found.unmatched == 1
    (tmp_path / "truth.csv").write_text(table.replace("a//1.png,normal", "a//1.png,pneumonia"))
    with pytest.raises(CxrError, match="two labels for a//1.png, normal and pneumonia; leave the wrong one out"):
        truths.attach(rows, tmp_path / "truth.csv", reference, 0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("until", "9999-12-31"),
        ("until", "9999-12-31T23:30-01:00"),
        ("since", "0001-01-01T00:00+01:00"),
    ],
)
def test_the_ends_of_the_calendar_are_refused_in_one_line(name, text):
    with pytest.raises(CxrError, match=re.escape(f"{name}={text}: expected a date or a time")):
        table.moment(text, name, end=name == "until")
