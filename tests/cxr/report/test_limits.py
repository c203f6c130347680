"""What a report does not claim: patients that nobody named, held-out images that were seen, figures left out."""

import pytest

from cxr.evaluation.facts import SeenImages
from cxr.report import formatting
from cxr.report.card import card
from cxr.report.checklist import checklist
from cxr.report.page import page
from tests.cxr.report.test_report import report_and_figures  # noqa: F401


def answers(report) -> dict[str, tuple[str, str]]:
    """Status and answer of each item of CLAIM."""
    return {item.claim: (item.status, item.answer) for item in checklist(report)}


def with_counts(report, patients: int):
    """The report of a source whose every cell of images has so many patients for each ten of its images."""
    counts = [count.model_copy(update={"patients": count.images * patients // 10}) for count in report.data.counts]
    return report.model_copy(update={"data": report.data.model_copy(update={"counts": counts})})


@pytest.fixture
def report(report_and_figures):  # noqa: F811
    return report_and_figures[0]


def test_a_source_without_patients_claims_no_split_by_patient(report):
    alone, named = with_counts(report, 10), with_counts(report, 5)
    claimed = not report.data.source.synthetic
    assert ("Every image counts as a patient of its own" in card(alone)) == claimed
    assert (answers(alone)["20"][0] == "open") == claimed
    assert "Every image counts as a patient" not in card(named) and answers(named)["20"][0] == "filled"


def test_images_that_the_model_has_seen_are_not_called_held_out(report_and_figures):  # noqa: F811
    report, figures = report_and_figures
    seen = report.model_copy(update={"seen": SeenImages(words="12 of 60 test images stand in its own training")})
    assert answers(seen)["32"] == ("open", "12 of 60 test images stand in its own training")
    assert "Nothing was chosen on these images" not in page(seen, figures)
    own = report.model_copy(update={"seen": None})
    assert answers(own)["32"][0] == "filled" and "Nothing was chosen on these images" in page(own, figures)


def test_a_gallery_that_was_left_out_is_not_one_without_mistakes(report_and_figures):  # noqa: F811
    report, figures = report_and_figures
    settings = report.settings.model_copy(
        update={"evaluate": report.settings.evaluate.model_copy(update={"gallery": 0})}
    )
    without = report.model_copy(
        update={"settings": settings, "mistakes": report.mistakes.model_copy(update={"images": []})}
    )
    text = page(without, {name: figure for name, figure in figures.items() if name != "gallery"})
    assert "was left out (evaluate.gallery: 0)" in text and "No mistakes" not in text
    assert "gallery" not in answers(without)["39"][1]


def test_a_model_without_maps_is_not_told_to_have_an_odd_architecture(report_and_figures):  # noqa: F811
    report, figures = report_and_figures
    ensemble = report.model_copy(update={"mistakes": report.mistakes.model_copy(update={"maps": False})})
    figures = figures | {"gallery": figures["confusion"]}
    assert formatting.NO_MAPS in page(ensemble, figures) and "ensembles" in formatting.NO_MAPS
    assert answers(ensemble)["31"][0] == "open"


def test_the_page_and_the_card_say_what_scores_of_bacteria_and_virus_measure(report_and_figures):  # noqa: F811
    """Of the Kermany dataset, whose labels are of readers; those of another one may be of a laboratory."""
    report, figures = report_and_figures
    for published in (False, True):
        told = report.model_copy(update={"data": report.data.model_copy(update={"named_as_published": published})})
        for text in (page(told, figures), card(told)):
            assert (formatting.READERS in text) == (published and not report.data.source.synthetic)
    assert "kappa was 0.69 for alveolar and 0.14 for interstitial infiltrates" in formatting.READERS
    told = told.model_copy(update={"model": report.model.model_copy(update={"classes": ["normal", "pneumonia"]})})
    assert formatting.readers(told) == ""
