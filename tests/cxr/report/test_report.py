"""The report is self-contained and complete, and can be written for any result."""

import json
import re
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from cxr.datasets.manifest import Manifest
from cxr.evaluation import assess, comparison, curve_plots, label_audit, plots, robustness, scores
from cxr.evaluation.facts import (
    DataFacts,
    DuplicateCounts,
    InputFacts,
    LeakReport,
    ModelFacts,
    SourceFacts,
    SplitCount,
    TrainingFacts,
)
from cxr.evaluation.probes import MapSanity, MapSimilarity, Robustness, RobustnessRow
from cxr.evaluation.results import (
    ChampionComparison,
    EvaluationReport,
    ExternalValidation,
    GateCheck,
    GateResult,
    LabelAudit,
    Mistakes,
    NoComparison,
    PackagingResult,
    Referrals,
    RegisteredVersion,
)
from cxr.evaluation.scores import Sample
from cxr.evaluation.statistics import Answered, Estimate
from cxr.models.bundle import Bundle
from cxr.report import formatting
from cxr.report.card import card
from cxr.report.checklist import checklist
from cxr.report.page import page
from tests.helpers import CLASSES, network, settings_with

ADDRESS = "<script>alert(1)</script>"
ANSWERED = Answered(coverage=Estimate(value=0.95), risk=Estimate(value=0.1), risk_of_all=Estimate(value=0.2))
EXTERNAL = ExternalValidation(
    run_id="v" * 32, data="another hospital", images=812, patients=640, auc=Estimate(value=0.5, low=0.4, high=0.6)
)
REFERRALS = Referrals(images=60, share=0.05, reasons={"undecided": 3}, answered=ANSWERED)


def model_facts(loaded: Bundle) -> ModelFacts:
    return ModelFacts(
        name="efficientnet_lite0",
        classes=list(CLASSES),
        input=InputFacts.model_validate(loaded.network.spec.to_dict()),
        parameters=3_000_000,
        members=0,
        temperature=1.3,
        operating_points=loaded.operating_points,
        facts=TrainingFacts(step="train", epoch=3),
        digest="d" * 64,
    )


def data_facts(*, synthetic: bool) -> DataFacts:
    duplicates = DuplicateCounts(groups=2, by_split={"inside train": 2}, across_patients=0, across_splits=0)
    return DataFacts(
        source=SourceFacts(kind="folder", address=ADDRESS, synthetic=synthetic),
        licence="CC BY 4.0",
        digest="e" * 64,
        counts=[
            SplitCount(split=split, label=label, images=1200, patients=700)
            for split in ("train", "val", "test")
            for label in CLASSES
        ],
        leaks=LeakReport(
            near_duplicate_bits=6,
            patients_in_two_splits=[],
            exact=duplicates,
            near=duplicates,
            dropped=[],
            exact_groups=[],
            near_pairs=[],
        ),
        unreadable=[],
        not_taken=0,
    )


def audit_of(sample: Sample, probabilities: np.ndarray) -> LabelAudit:
    """The audit of a split whose images are those of `sample`."""
    names = [f"{n}.png" for n in range(len(sample.labels))]
    rows = pd.DataFrame({"path": names, "patient": names, "label": [CLASSES[i] for i in sample.labels]})
    found = label_audit.doubtful(sample.labels, probabilities)
    return label_audit.audit(Manifest(rows, "root", CLASSES), sample, probabilities, found, 3)


def report_of(labels: np.ndarray, *, full: bool) -> tuple[EvaluationReport, dict]:
    """A report and its figures, with every optional result (`full`) or with none."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(labels), 3)) + np.eye(3)[labels]
    sample = Sample.from_labels(labels, np.arange(len(labels)).astype(str), CLASSES, 0)
    loaded = Bundle(network(), 1.3, {"youden": 0.4, "sensitive": 0.2} if full else {})
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    result = assess.assess(sample, logits, loaded, [0.1])
    optional = {}
    if full:
        compared = comparison.compare(sample, probabilities, probabilities[:, [0, 2, 1]])
        row = RobustnessRow(change="blur", changed=0.1, scores=result.scores)
        resampled = scores.resampled(sample, probabilities)
        shortcuts = [
            robustness.near_chance("the border alone", resampled, resampled, sample),
            robustness.near_unchanged("all but the border", resampled, resampled, sample),
        ]
        optional = {
            "champion": ChampionComparison(version=4, validation=compared, test=compared),
            "gate": GateResult(verdict="champion: better", checks=[GateCheck(rule="a", passed=True, words="b")]),
            "out_of_fold": True,
            "label_audit": audit_of(sample, probabilities),
            "registered": RegisteredVersion(name="model", version=5),
            "robustness": Robustness(images=10, table=[row, row], shortcuts=shortcuts, inside=0.6),
            "map_sanity": MapSanity(
                images=16,
                cascade=[
                    MapSimilarity(randomised=what, similarity=Estimate(value=0.7, low=0.6, high=0.8))
                    for what in ("the head", "all weights")
                ],
                depends=False,
            ),
            "external": EXTERNAL,
            "served": PackagingResult(
                largest_difference=1e-6, operating_point="youden", referred={"val": REFERRALS, "test": REFERRALS}
            ),
        }
    report = EvaluationReport(
        created=datetime(2026, 5, 1, 12, 30, tzinfo=UTC),
        resamples=2000,
        model=model_facts(loaded),
        data=data_facts(synthetic=not full),
        runs={"evaluate": "abc"},
        settings=settings_with({}),
        versions={"torch": "2"},
        validation=result,
        test=result,
        subgroups=[],
        mistakes=Mistakes(maps=full, images=[]),
        **optional,
    )
    report = report.model_copy(update={"checklist": checklist(report)})
    shown = sample.labels, probabilities, CLASSES, "test split", loaded.operating_points
    figures = plots.classification(*shown, finding=sample.finding)
    figures["reliability"] = curve_plots.reliability(logits, sample, 1.3, "test split")
    figures["decision_curve"] = curve_plots.decision_curve(result.decision_curve, "test split")
    figures["risk_coverage"] = curve_plots.risk_coverage(result.risk_coverage, "test split")
    if full:
        figures["map_sanity"] = curve_plots.sanity(report.map_sanity)
        figures["robustness"] = plots.robustness(report.robustness)
        figures["differences"] = plots.differences(report.champion.test, "champion 4")
    return report, figures


@pytest.fixture(scope="module", params=["every optional result", "three images of one class"])
def report_and_figures(request):
    full = request.param == "every optional result"
    labels = np.random.default_rng(1).integers(0, 3, 60) if full else np.array([1, 1, 1])
    return report_of(labels, full=full)


@pytest.fixture(scope="module")
def report(report_and_figures) -> EvaluationReport:
    return report_and_figures[0]


def test_the_page_is_self_contained_and_light(report_and_figures):
    text = page(*report_and_figures)
    assert len(text) < 5_000_000
    for groups in re.findall(r"""(?:src|href)=["']?([^"'\s>]+)|url\(([^)]+)\)|@import\s+(\S+)""", text):
        assert "".join(groups).startswith("data:")
    assert "<script" not in text and "&lt;script&gt;" in text


def test_the_page_has_all_sections(report_and_figures):
    report, _ = report_and_figures
    text = page(*report_and_figures)
    for heading in (
        "Intended use and limits",
        "Data",
        "Leaks",
        "Scores",
        "Operating points",
        "Referrals",
        "Calibration",
        "Net benefit",
        "Answering less, and more surely",
        "Where it fails",
        "Label audit",
        "Robustness",
        "Do the maps show what the model has learnt?",
        "Comparison with the champion",
        "Methods",
        "Reproduction",
        "Checklist",
    ):
        assert f">{heading}</h" in text
    assert ("SYNTHETIC DATA" in text) == report.data.source.synthetic
    assert "not a medical device" in text and "Age, sex and origin" in text
    assert "01 May 2026, 12:30 UTC" in text and "2,000" in text


def test_out_of_fold_answers_and_the_audit_are_called_what_they_are(report_and_figures):
    report, _ = report_and_figures
    text, audit = page(*report_and_figures), report.label_audit
    assert (formatting.OUT_OF_FOLD in text) == (formatting.OUT_OF_FOLD in card(report)) == report.out_of_fold
    assert ("it needs answers of models that were not trained on the images" in text) == (audit is None)
    if audit is not None:
        count = sum(audit.doubtful.values())
        assert count > 0 and f"{count} of {audit.images} images, all listed in" in text
        assert "The last column is descriptive" in text and audit.without["accuracy"] != audit.with_all["accuracy"]


def test_the_page_says_why_there_is_no_comparison(report_and_figures):
    report, figures = report_and_figures
    outcome = NoComparison(version=4, why_not="the champion (version 4) cannot be loaded")
    text = page(report.model_copy(update={"champion": outcome}), figures)
    assert "The champion (version 4) cannot be loaded." in text


def test_the_page_says_on_which_images_a_champion_of_another_split_was_compared(report_and_figures):
    report, figures = report_and_figures
    if report.champion is None:
        return
    assert "of another split" not in page(report, figures)
    validation, test = report.champion.validation, report.champion.test
    partly = ChampionComparison(version=4, validation=validation.model_copy(update={"left_out": 9}), test=test)
    text = page(report.model_copy(update={"champion": partly}), figures)
    assert "on the 60 validation\nand 60 test images that it has not seen" in text
    without = partly.model_copy(update={"test": None})
    text = page(report.model_copy(update={"champion": without}), figures)
    assert "on the 60 validation\nimages that it has not seen" in text and "McNemar's exact" not in text


def test_the_card_has_scores_points_and_limits(report):
    text = card(report)
    assert "| macro-F1 |" in text and "argmax" in text and "not a medical device" in text
    assert len(text) < 4800


def test_the_json_round_trips(report):
    text = report.to_json()
    assert EvaluationReport.model_validate_json(text) == report
    values = json.loads(text, parse_constant=pytest.fail)
    assert values["schema_version"] == 2
    assert values["settings"]["train"]["optimizer"]["_target_"] == "torch.optim.Adam"
    assert "settings_text" not in values
    with pytest.raises(ValidationError, match="schema_version"):
        EvaluationReport.model_validate({**values, "schema_version": 1})


def test_the_report_of_other_classes_says_nothing_of_pneumonia():
    classes, labels = ("healthy", "tuberculosis"), np.arange(60) % 2
    sample = Sample.from_labels(labels, labels.astype(str), classes, 0, "tuberculosis")
    logits = np.random.default_rng(0).normal(size=(60, 2))
    loaded = Bundle(network(), 1.3, {"youden": 0.4}, finding="tuberculosis")
    result, made = assess.assess(sample, logits, loaded, [0.1]), report_of(np.array([1, 1, 1]), full=False)[0]
    facts = made.model.model_copy(update={"classes": list(classes), "finding": "tuberculosis"})
    counts = [count.model_copy(update={"label": name}) for name in classes for count in made.data.counts[::3]]
    compared = comparison.compare(sample, logits, logits[:, ::-1])
    changed = {
        "model": facts,
        "data": made.data.model_copy(update={"counts": counts}),
        "settings": settings_with({"data.classes": list(classes), "data.finding": "tuberculosis"}),
        "validation": result,
        "test": result,
        "champion": ChampionComparison(version=4, validation=compared, test=compared),
    }
    report = made.model_copy(update=changed)
    report = report.model_copy(update={"checklist": checklist(report)})
    drawn = plots.classification(labels, logits, classes, "test split", finding="tuberculosis")
    page_text = page(report, drawn)
    for text in (page_text.replace(f"name: {report.settings.registry.name}", ""), card(report)):
        assert "tuberculosis" in text and "healthy" in text
        for word in ("neumonia", "children", "bacteria", "one to five"):
            assert word not in text, word
    for words in ("AUC, tuberculosis vs healthy", "<h3>Tuberculosis vs healthy</h3>", "sensitivity for tuberculosis"):
        assert words in page_text
