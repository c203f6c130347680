"""The report needs nothing beside it, says all it should, and can be made of any result there can be."""

import json
import re

import numpy as np
import pytest

from cxr.evaluation import assess, comparison, figures, plots
from cxr.evaluation.scores import Sample
from cxr.models.bundle import Bundle
from cxr.report.card import card
from cxr.report.checklist import checklist
from cxr.report.page import page
from tests.helpers import CLASSES, network, settings_with


def facts_of(labels: np.ndarray, *, rich: bool) -> tuple[dict, dict]:
    """Facts and figures of an evaluation, with everything there can be (`rich`) or with the least."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(labels), 3)) + np.eye(3)[labels]
    sample = Sample.made(labels, np.arange(len(labels)).astype(str), CLASSES, 0)
    loaded = Bundle(network(), 1.3, {"youden": 0.4, "sensitive": 0.2} if rich else {}, {"step": "train", "epoch": 3})
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = assess.assess(sample, logits, loaded, [0.1])
    settings = settings_with({})
    leaks = {"patients_in_two_splits": [], "dropped": [], "exact": {"groups": 2, "across_splits": 0},
             "near": {"groups": 1, "across_splits": 0}}  # fmt: skip
    counts = [{"split": s, "label": c, "images": 1200, "patients": 700} for s in ("train", "val", "test")
              for c in CLASSES]  # fmt: skip
    facts = {
        "made": "today", "resamples": "2,000", "validation": found, "test": found, "subgroups": [],
        "model": {"name": "efficientnet_lite0", "classes": list(CLASSES), "input": loaded.network.spec.to_dict(),
                  "parameters": 3_000_000, "members": 0, "temperature": 1.3,
                  "operating_points": loaded.operating_points, "facts": loaded.facts, "digest": "d" * 64},
        "data": {"source": {"address": "<script>alert(1)</script>", "citation": None, "synthetic": not rich},
                 "licence": "CC BY 4.0", "digest": "e" * 64, "counts": counts, "leaks": leaks, "unreadable": [],
                 "not_taken": 0},
        "runs": {"evaluate": "abc"}, "settings": settings.to_dict(), "settings_text": settings.to_yaml(),
        "versions": {"torch": "2"}, "mistakes": {"maps": rich, "images": []},
    }  # fmt: skip
    drawn = figures.figures(sample.labels, probabilities, CLASSES, "test part", loaded.operating_points)
    drawn["reliability"] = plots.reliability(logits, sample.labels, 1.3, "test part")
    if rich:
        compared = comparison.compare(sample, probabilities, probabilities[:, [0, 2, 1]])
        facts["champion"] = {"version": "4", "test": compared, "validation": compared}
        facts["gate"] = {"verdict": "champion: better", "checks": [{"rule": "a", "passed": True, "words": "b"}]}
        facts["registered"] = {"name": "model", "version": "5"}
        row = {"scores": found["scores"], "change": "blur", "changed": 0.1}
        facts["robustness"] = {"images": 10, "table": [row, row], "inside": 0.6}
        drawn |= {"robustness": plots.robustness(facts["robustness"]),
                  "differences": plots.differences(compared, "champion 4")}  # fmt: skip
    facts["checklist"] = checklist(facts)
    return facts, drawn


@pytest.fixture(scope="module", params=["all there can be", "three images of one class"])
def made(request):
    rich = request.param == "all there can be"
    labels = np.random.default_rng(1).integers(0, 3, 60) if rich else np.array([1, 1, 1])
    return facts_of(labels, rich=rich)


def test_the_page_is_self_contained_and_light(made):
    text = page(*made)
    assert len(text) < 5_000_000
    for found in re.findall(r"""(?:src|href)=["']?([^"'\s>]+)|url\(([^)]+)\)|@import\s+(\S+)""", text):
        assert "".join(found).startswith("data:")
    assert "<script" not in text and "&lt;script&gt;" in text


def test_the_page_says_what_it_should(made):
    facts, _ = made
    text = page(*made)
    for heading in ("Intended use and limits", "Data", "Leaks", "Scores", "Operating points", "Calibration",
                    "Where it fails", "Robustness", "How to repeat it", "Checklist"):  # fmt: skip
        assert f">{heading}</h" in text
    assert ("SYNTHETIC DATA" in text) == facts["data"]["source"]["synthetic"]
    assert "no medical device" in text and "Age, sex and origin" in text


def test_the_card_has_scores_points_and_limits(made):
    text = card(made[0])
    assert "| macro-F1 |" in text and "argmax" in text and "no medical device" in text
    assert len(text) < 4800


def test_every_claim_item_is_there_once_and_answered(made):
    items = made[0]["checklist"]
    numbers = [item["claim"] for item in items if item["claim"] != "-"]
    assert numbers == [str(n) for n in range(1, 45)]
    assert all(item["status"] in ("filled", "open") and item["answer"] for item in items)
    json.dumps(made[0], allow_nan=False)
