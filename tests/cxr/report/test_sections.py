"""What is not as expected stands in red and in words, and only then."""

import numpy as np
import pytest

from cxr.evaluation.statistics import Estimate
from cxr.report import formatting
from cxr.report.page import page
from tests.cxr.report.test_report import report_of


@pytest.fixture(scope="module")
def report():
    return report_of(np.arange(60) % 3, full=True)[0]


def test_a_shortcut_that_is_taken_is_named(report):
    text = page(report, {})
    notice = text.split("Not as expected:")[1].split("</div>")[0]
    assert "From the border alone: expected\nnear chance, but the interval of the AUC" in notice
    assert "all but the border" not in notice and ">Shortcuts</h" in text
    assert '<td class="open">not as expected</td>' in text and '<td class="filled">as expected</td>' in text
    robust = report.robustness.model_copy(update={"shortcuts": report.robustness.shortcuts[1:]})
    assert "Not as expected" not in page(report.model_copy(update={"robustness": robust}), {})


def test_maps_that_do_not_depend_on_the_weights_are_named(report):
    warning = "Do not read anything into them"
    assert warning in page(report, {})
    kept = report.map_sanity.model_copy(update={"depends": True})
    assert warning not in page(report.model_copy(update={"map_sanity": kept}), {})


@pytest.mark.parametrize(
    "mean, slope, words",
    [
        ((-0.4, -0.1), (0.8, 1.2), "On average, probabilities are too high."),
        ((0.1, 0.4), (1.1, 1.6), "On average, probabilities are too low. Probabilities are too moderate."),
        ((-0.1, 0.1), (0.4, 0.9), "Probabilities are too extreme."),
        ((-0.1, 0.1), (0.8, 1.2), "Neither differs from perfect"),
        ((-0.4, -0.1), (None, None), "On average, probabilities are too high. What has no value is undefined"),
        ((None, None), (None, None), "Undefined"),
    ],
)
def test_what_slope_and_mean_of_the_probabilities_mean_is_said(report, mean, slope, words):
    in_the_large, slope_ = (Estimate(value=low, low=low, high=high) for low, high in (mean, slope))
    found = report.test.calibration.finding.model_copy(update={"in_the_large": in_the_large, "slope": slope_})
    calibration = report.test.calibration.model_copy(update={"finding": found})
    assert formatting.calibrated(report.test.model_copy(update={"calibration": calibration})).startswith(words)


def test_coverage_at_the_served_referral_is_said(report):
    assert "the model answers 0.950 of the test images" in page(report, {})
    bare = report_of(np.array([1, 1, 1]), full=False)[0]
    assert "the model answers" not in page(bare, {})
