"""The report tells what a table says of the patients, and what is not in the data only where that is true."""

import numpy as np
import pytest

from cxr.evaluation.facts import Characteristic
from cxr.report.card import card
from cxr.report.checklist import checklist
from cxr.report.page import page
from tests.cxr.report.test_report import report_of


@pytest.fixture(scope="module")
def report_and_figures():
    return report_of(np.random.default_rng(1).integers(0, 3, 60), full=True)


def told(report, names, labels="labels.csv"):
    """The same report of a dataset whose table says these things."""
    characteristics = [
        Characteristic(name=name, split=split, text=f"{name} of {split}")
        for name in names
        for split in ("train", "test")
    ]
    source = report.data.source.model_copy(update={"labels": labels, "left_out": {"filter view": 7}})
    data = report.data.model_copy(update={"characteristics": characteristics, "source": source})
    report = report.model_copy(update={"data": data, "small_subgroups": {"age: below 1 year": 3}})
    return report.model_copy(update={"checklist": checklist(report)})


@pytest.mark.parametrize(
    "names, said",
    [
        ([], "Age, sex and origin of the patients are not in the data"),
        (["view"], "Age, sex and origin of the patients are not in the data"),
        (["age"], "Sex and origin of the patients are not in the data"),
        (["age", "sex"], "Origin of the patients is not in the data"),
        (["age", "sex", "site"], None),
    ],
)
def test_what_is_not_in_the_data_is_said_only_where_it_is_true(report_and_figures, names, said):
    report = told(report_and_figures[0], names)
    for text in (page(report, report_and_figures[1]), card(report)):
        assert ("not in the data, so it cannot be determined" in text) == (said is not None)
        assert (said or "Scores by age, sex and site are given") in text
        assert "one to five years" not in text and "young children" not in text
    items = {(item.claim, item.tripod): item for item in report.checklist}
    assert items["36", "20b"].status == ("filled" if {"age", "sex"} <= set(names) else "open")
    assert items["-", "14"].status == ("filled" if names else "open")
    assert "labels.csv" in items["14", "8a"].answer


def test_the_page_tells_patients_by_split_small_groups_and_rows_left_out(report_and_figures):
    text = page(told(report_and_figures[0], ["age"]), report_and_figures[1])
    assert "Characteristics by split" in text and "age of train" in text
    assert "rows of the table left out: filter view" in text
    assert "Too few images or patients for scores: age: below 1 year (3)." in text
    assert "Characteristics by split" not in page(*report_and_figures)
