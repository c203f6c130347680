"""The report of a validation is self-contained, warns first, and can be written for any result."""

from datetime import UTC, datetime

import numpy as np
import pytest

from cxr.evaluation import external, plots, referral, referral_plots, risk_coverage, validation_plots
from cxr.evaluation.decision_curve import decision_curve
from cxr.evaluation.external import Thresholds
from cxr.evaluation.facts import SourceFacts, UnreadableFile
from cxr.evaluation.results import Mistake, Mistakes
from cxr.evaluation.scores import Sample
from cxr.evaluation.validation_results import (
    Distances,
    FlowStep,
    Internal,
    NoInternal,
    Overlap,
    SetFacts,
    ValidatedModel,
    ValidationReport,
)
from cxr.report.validation_page import page

CLASSES = ("normal", "pneumonia")
ADDRESS = "<script>alert(1)</script>"


def drawn(seed: int, n: int = 60) -> tuple[Sample, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels, score = rng.integers(0, 2, n), rng.random(n)
    score = np.clip(score + 0.3 * (labels - 0.5), 0.01, 0.99)
    return Sample.from_labels(labels, np.arange(n).astype(str), CLASSES, seed), np.stack([1 - score, score], 1)


def report_of(**given) -> ValidationReport:
    sample, chances = drawn(0)
    scored = external.image_scores(sample, chances, Thresholds({"argmax": 0.5, "youden": 0.6}, [0.1]))
    values = {
        "created": datetime(2026, 1, 2, tzinfo=UTC),
        "resamples": 2000,
        "seed": 0,
        "model": ValidatedModel(
            name="cxr-pneumonia", version=3, network="efficientnet_lite0", classes=["normal", "bacteria", "virus"],
            temperature=1.2, operating_point="argmax", operating_points={"argmax": 0.5}, bundle_digest="b" * 64,
            synthetic=False,
        ),
        "data": SetFacts(
            source=SourceFacts(kind="folder", address=ADDRESS), digest="d" * 64, classes=list(CLASSES),
            finding="pneumonia",
            mapping={"normal": "normal", "bacteria": "pneumonia", "virus": "pneumonia"}, by_class=scored.by_class,
            flow=[FlowStep(what="images found", images=1234)], unreadable=[UnreadableFile(path="a", reason="empty")],
            refused=[], overlap=Overlap(checked=True, compared=99, reasons={"same pixels": 7}, same_identifier=5),
        ),
        "runs": {"validate": "v" * 32},
        "versions": {"numpy": "2"},
        "all": scored,
        "answered": scored,
        "referred": {"undecided": 5},
        "coverage": external.coverage(sample, chances, 0.5, np.arange(60) % 4 > 0),
        "risk_coverage": risk_coverage.curves(sample, chances),
        "decision_curve": decision_curve(sample.labels != 0, chances[:, 1], {"argmax": 0.5}, sample.weights),
        "distances": Distances(limit=3.0, quantiles=[1.0, 2.0], validation=[0.5, 1.5, 3.5], beyond=0.1),
        "subgroups": [],
        "mistakes": Mistakes(maps=False, images=[Mistake(path="a", truth="normal", prediction="x", probability=0.9)]),
        "internal": Internal(
            run_id="e" * 32, images=60, patients=60, scores=external.side_by_side(drawn(1), (sample, chances), 0)
        ),
    }  # fmt: skip
    return ValidationReport(**{**values, **given})


def test_the_page_is_whole_and_self_contained():
    report = report_of()
    sample, chances = drawn(0)
    figures = plots.classification(sample.labels, chances, CLASSES, "this set", finding="pneumonia")
    figures["distances"] = validation_plots.distances(np.linspace(1, 9, 60), report.distances)
    figures["reliability"] = validation_plots.reliability(chances[:, 1], sample, "pneumonia")
    figures["side_by_side"] = validation_plots.side_by_side(report.internal)
    text = page(report, figures)
    assert "<script" not in text and 'src="http' not in text and "href=" not in text
    assert text.count('<img src="data:image/svg+xml;base64,') == len(figures)
    for words in (
        "1,234",
        "bacteria</strong> → pneumonia",
        "99 training and validation images",
        "e" * 32,
        "undecided",
        "AURC",
        "calibration slope",
    ):
        assert words in text, words
    assert "notice" not in text.partition("<body>")[2]  # nothing to warn of


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"overlap": Overlap(checked=False, why_not="it could not be checked")}, "It could not be checked. Scores on"),
        ({"overlap": Overlap(checked=True, own_test=20)}, "20 of the images stand in the model&#39;s own test split"),
        ({"source": SourceFacts(kind="sample", address="sample", synthetic=True)}, "SYNTHETIC DATA"),
    ],
)
def test_what_a_reader_must_know_comes_before_any_number(given, words):
    report = report_of()
    text = page(report.model_copy(update={"data": report.data.model_copy(update=given)}), {})
    assert words in text.partition('class="cards"')[0]


def test_it_can_be_written_without_answers_own_test_split_and_distances_of_validation():
    distances = Distances(limit=3.0, quantiles=[1.0], validation=None, beyond=1.0)
    lacking = NoInternal(why_not="the files are gone")
    text = page(report_of(answered=None, internal=lacking, distances=distances), {})
    assert "the 0 it answers" in text and "Not available: the files are gone." in text
    assert "registered before the distances of its\nvalidation images were kept" in text
    assert validation_plots.distances(np.array([1.0, 2.0]), distances)


def test_the_frozen_bands_stand_with_what_they_cost_and_save_here():
    sample, chances = drawn(0)
    points, bands = {"argmax": 0.5, "youden": 0.6}, {"argmax": (0.4, 0.6), "youden": (0.6, 0.6)}
    found = referral.on_sets(points, bands, {"this set": (sample, chances)})
    text = page(report_of(bands=found), {"referral": referral_plots.referral(found)})
    section = text.partition(">Undecided images</h2>")[2].partition("<h2>")[0].replace("\N{NO-BREAK SPACE}", " ")
    assert "<td>0.4 to 0.6</td>" in section and "<td>none</td>" in section and "<td>this set</td>" in section
    assert 'alt="What referring costs and saves' in section and "frozen bands were chosen on its own" in section
