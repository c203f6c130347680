"""The rule of decision in one sentence, and what its bands cost and save, on page, card and checklist."""

import re

import numpy as np
import pytest

from cxr.evaluation import referral, referral_plots
from cxr.evaluation.results import EvaluationReport
from cxr.evaluation.scores import Sample
from cxr.evaluation.statistics import ChosenBands
from cxr.report import referral_words
from cxr.report.card import card
from cxr.report.checklist import checklist
from cxr.report.page import page
from tests.cxr.report.test_report import report_of
from tests.helpers import CLASSES

POINTS = {"argmax": 0.5, "youden": 0.4, "sensitive": 0.2}
BANDS = {"argmax": (0.417, 0.583), "youden": (0.33, 0.48), "sensitive": (0.2, 0.2)}


def images(n: int = 300, seed: int = 0) -> tuple[Sample, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    logits = 2 * rng.normal(size=(n, 3)) + 2 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Sample.from_labels(labels, np.arange(n).astype(str), CLASSES, 0), probabilities


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    """A report with bands of the first rule."""
    points = referral.on_sets(POINTS, BANDS, {"validation": images(), "test": images(seed=1)})
    bands = ChosenBands(rule="refer_share", limit=0.03, images=1234, points=points)
    made = report_of(np.arange(60) % 3, full=True)[0].model_copy(update={"bands": bands})
    return made.model_copy(update={"checklist": checklist(made)})


def test_one_sentence_says_how_the_model_decides(report):
    assert referral_words.rule(report) == (
        "The model answers pneumonia if its probability is at or above the threshold of the operating point, and "
        "normal if it is below, but in a band around the threshold, as far from it at both ends in log-odds, it refers "
        "the image to a person: the widest band with at most 3 % of 1,234 validation images in it."
    )
    risky = report.bands.model_copy(update={"rule": "risk", "limit": 0.025})
    words = "the narrowest band that leaves at most 2.5 % of its answers on 1,234 validation images wrong."
    assert referral_words.rule(report.model_copy(update={"bands": risky})).endswith(words)
    assert referral_words.rule(report.model_copy(update={"bands": None})).endswith("and normal if it is below.")


def test_page_card_and_checklist_state_the_same_rule(report):
    rule = referral_words.rule(report)
    [item] = [item for item in report.checklist if item.stard == "19"]
    assert rule in card(report) and rule in item.answer and page(report, {}).count(rule) == 2
    assert len(card(report)) < 4800
    assert "| argmax | 0.500 | 0.417 to 0.583 |" in card(report) and "| sensitive | 0.200 | none |" in card(report)


def test_the_page_has_a_row_for_each_point_and_set_and_the_curve(report):
    text = page(report, {"referral": referral_plots.referral(report.bands.points)})
    section = text.partition(">Referrals</h2>")[2].partition("<h3>All reasons")[0]
    section = section.replace("\N{NO-BREAK SPACE}", " ")
    rows = [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", section) if "<td>" in row]
    assert [row[:4] for row in rows[:3]] == [
        ["argmax", "0.5", "0.417 to 0.583", "validation"],
        ["", "", "", "test"],
        ["youden", "0.4", "0.33 to 0.48", "validation"],
    ]
    assert len(rows) == 6 and {len(row) for row in rows} == {len(referral_words.HEAD)}
    assert 'alt="What referring costs and saves' in section
    text = page(report.model_copy(update={"bands": None}), {})
    assert "No band was chosen: that needs validation images of the split" in text


def test_what_a_band_costs_and_saves_is_counted_by_the_rule_of_the_service(report):
    sample, probabilities = images()
    for name, threshold in POINTS.items():
        found, (low, high) = report.bands.points[name].on["validation"], BANDS[name]
        score, truth = 1 - probabilities[:, 0], sample.labels > 0
        given = (score < low) | (score >= high)
        wrong = (score >= threshold) != truth
        assert found.images == (~given).sum() and found.share.value == pytest.approx((~given).mean())
        assert found.risk.value == pytest.approx(wrong[given].mean())
        assert found.risk_of_all.value == pytest.approx(wrong.mean()) == pytest.approx(found.curve[-1].risk.value)
        assert found.sensitivity.value == pytest.approx((score >= threshold)[given & truth].mean())
        assert found.specificity.value == pytest.approx((score < threshold)[given & ~truth].mean())
        for end in (found.share, found.risk, found.sensitivity):
            assert end.low <= end.value <= end.high
        # The curve is that of bands of other widths: without the nearest tenth, for example.
        odds = np.abs(np.log(score / (1 - score)) - np.log(threshold / (1 - threshold)))
        nearest = np.argsort(odds)[: len(odds) // 10]
        [at] = [at for at in found.curve if at.coverage == 0.9]
        assert at.risk.value == pytest.approx(np.delete(wrong, nearest).mean())


def test_results_of_images_that_are_all_referred_or_all_of_one_class_are_undefined():
    sample, probabilities = images(12)
    everything = referral.referral(sample, probabilities, 0.5, (0.0, 1.0))
    assert everything.images == 12 and everything.risk.value is None and everything.sensitivity.value is None
    some = sample.subset(sample.labels > 0)
    found = referral.referral(some, probabilities[sample.labels > 0], 0.5, (0.4, 0.6))
    assert found.specificity.value is None and found.sensitivity.value is not None
    point = referral.on_sets({"argmax": 0.5}, {"argmax": (0.0, 1.0)}, {"this set": (sample, probabilities)})
    assert referral_plots.referral(point) and referral_words.rows(point)[0][5] == "–"


def test_the_mark_lies_on_the_curve(report):
    """At the share that the band refers, with the risk that it leaves."""
    drawn = referral_plots.referral(report.bands.points)
    for axes, (name, band) in zip(drawn.axes, report.bands.points.items(), strict=True):
        assert axes.get_title() == f"{name} (p ≥ {band.threshold:.3g})"
        marks = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
        curves = [line for line in axes.lines if line.get_marker() != "o"]
        assert len(marks) == len(curves) == 2
        for mark, curve, found in zip(marks, curves, band.on.values(), strict=True):
            at = mark.get_xdata()[0], mark.get_ydata()[0]
            assert at == pytest.approx((found.share.value, found.risk.value))
            assert at in list(zip(curve.get_xdata(), curve.get_ydata(), strict=True))


def test_metrics_name_bands_costs_and_savings(report):
    found = referral.metrics(report.bands)
    assert found["band_low_argmax"] == 0.417 and found["band_high_youden"] == 0.48
    point = report.bands.points["youden"]
    assert found["test_undecided_youden"] == point.on["test"].share.value
    assert found["val_risk_youden"] == point.on["validation"].risk.value
