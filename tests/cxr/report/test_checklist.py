"""The checklist has every item of the guidelines, and the methods state what was measured."""

import numpy as np
import pandas as pd
import pytest

from cxr.evaluation.results import EvaluationReport
from cxr.report import formatting
from cxr.report.checklist import checklist
from tests.cxr.report.test_report import report_of
from tests.helpers import ROOT


@pytest.fixture(scope="module", params=[True, False], ids=["every optional result", "one class"])
def report(request) -> EvaluationReport:
    labels = np.arange(30) % 3 if request.param else np.array([1, 1, 1])
    return report_of(labels, full=request.param)[0]


def test_every_claim_item_is_there_once_and_answered(report):
    numbers = [item.claim for item in report.checklist if item.claim != "-"]
    assert numbers == [str(n) for n in range(1, 45)]
    assert all(item.answer for item in report.checklist)


def test_every_stard_item_is_there(report):
    """The 40 items of STARD-AI, five of them in parts."""
    parts = {"15": "abcd", "16": "abc", "17": "ab", "26": "ab", "40": "ab"}
    expected = {f"{n}{part}" for n in range(1, 41) for part in parts.get(str(n), [""])}
    assert {number for item in report.checklist for number in item.stard.split(", ")} - {"-"} == expected


def test_external_validation_is_in_the_checklist_once_there_is_one(report):
    item = next(item for item in report.checklist if item.claim == "33")
    if report.external is None:
        assert item.status == "open" and item.answer.startswith("none")
    else:
        assert item.status == "filled"
        for fact in ("another hospital", "812 images of 640 patients", "0.500 (0.400 to 0.600)", "v" * 32):
            assert fact in item.answer


def test_the_validation_of_another_version_is_none_of_this_model():
    report = report_of(np.arange(30) % 3, full=True)[0]
    other = report.model_copy(update={"external": report.external.model_copy(update={"other_version": 2})})
    item = next(item for item in checklist(other) if item.claim == "33")
    assert item.status == "open" and item.answer.startswith("none of this model; of version 2 on another hospital: 812")


def answer(report: EvaluationReport, claim: str, **changed: object) -> tuple[str, str]:
    """Status and answer of an item of the report with some of its fields changed."""
    item = next(item for item in checklist(report.model_copy(update=changed)) if item.claim == claim)
    return item.status, item.answer


def test_facts_of_the_published_dataset_are_told_of_no_other_images():
    """Phantoms and a hospital's own folders have the same classes."""
    report = report_of(np.arange(30) % 3, full=True)[0]
    for changed in (
        {"named_as_published": False},
        {"source": report.data.source.model_copy(update={"synthetic": True})},
    ):
        data = report.data.model_copy(update={"named_as_published": True} | changed)
        other = report.model_copy(update={"data": data})
        assert answer(other, "5") == ("filled", "retrospective") and "physicians" not in answer(other, "16")[1]
        assert "children" not in " ".join(formatting.limits(other)) + formatting.intended_use(other)
    published = report.model_copy(update={"data": report.data.model_copy(update={"named_as_published": True})})
    assert "published dataset" in answer(published, "5")[1] and "children" in " ".join(formatting.limits(published))


def test_an_ensemble_tells_how_its_members_were_trained():
    report = report_of(np.arange(30) % 3, full=True)[0]
    facts = report.model.facts.model_copy(update={"step": "ensemble", "members_step": "finetune"})
    changed = {"model": report.model.model_copy(update={"facts": facts}), "runs": {"ensemble": "e", "evaluate": "v"}}
    assert f"at most {report.settings.finetune.epochs} epochs" in answer(report, "25", **changed)[1]


def test_settings_are_not_told_of_a_bundle_that_other_ones_may_have_trained():
    report = report_of(np.arange(30) % 3, full=True)[0]
    assert answer(report, "25", runs={"train": "t", "evaluate": "v"})[0] == "filled"
    for claim in ("24", "25"):
        status, words = answer(report, claim, runs={"evaluate": "v"})
        assert status == "open" and "the bundle is a folder" in words


def test_rows_without_a_label_are_missing_data(report):
    source = report.data.source.model_copy(update={"left_out": {"no label": 1234}})
    other = report.model_copy(update={"data": report.data.model_copy(update={"source": source})})
    answers = [next(item.answer for item in checklist(one) if item.claim == "12") for one in (report, other)]
    assert answers[0].startswith("no missing labels") and answers[1].startswith("1,234 rows without a label")


def test_the_methods_state_the_coverage_that_was_measured():
    """`bench/coverage.csv` is what `python -m bench.coverage` wrote last."""
    table = pd.read_csv(ROOT / "bench/coverage.csv", index_col="score")
    binned = table.index.isin(["ece", "adaptive_ece"])

    def span(values: pd.Series) -> str:
        return f"in {100 * values.min():.0f} to {100 * values.max():.0f} %"

    stated = next(method for method in formatting.METHODS if method.startswith("Coverage"))
    by_patient = table["coverage"]
    spans = [by_patient[~binned], by_patient[binned], table["coverage_if_images_were_drawn"]]
    assert [f"in {part.split(' %')[0]} %" for part in stated.split(" in ")[2:]] == [span(values) for values in spans]
    shares = pd.read_csv(ROOT / "bench/coverage_of_shares.csv")
    assert any("in at least 95 % of samples" in method for method in formatting.METHODS)
    assert shares["coverage"].min() >= 0.95 and set(shares["patients"]) == {40, 125}
    assert (shares["share"].min(), shares["share"].max()) == (0.9, 0.995)
