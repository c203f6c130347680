"""`evaluate` chooses the bands of referral on validation images of the bundle's own split, and on nothing else."""

import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.evaluation import bands
from cxr.evaluation.scores import Sample
from steps.work import referring
from tests.helpers import CLASSES, settings_with

POINTS = {"argmax": 0.5, "youden": 0.4}


def images(n: int, seed: int) -> tuple[Sample, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    logits = 2 * rng.normal(size=(n, 3)) + 2 * np.eye(3)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Sample.from_labels(labels, np.arange(n).astype(str), CLASSES, 0), probabilities


@pytest.fixture
def context() -> SimpleNamespace:
    logged: dict[str, float] = {}
    settings = settings_with({"serving.refer_share": 0.1})
    return SimpleNamespace(settings=settings, log=logging.getLogger("cxr.test"), metrics=logged.update, logged=logged)


def subject(seen: object = None) -> SimpleNamespace:
    return SimpleNamespace(bundle=SimpleNamespace(operating_points={"youden": 0.4}), seen=seen)


def chosen(context, seen=None, **sets):
    samples, probabilities = ({name: part[i] for name, part in sets.items()} for i in (0, 1))
    return referring.choose(context, subject(seen), samples, probabilities)


def test_the_bands_are_those_of_validation_whatever_the_test_split_says(context):
    val = images(200, 0)
    first, second = chosen(context, val=val, test=images(90, 1)), chosen(context, val=val, test=images(50, 2))
    wanted = bands.choose(val[0].labels > 0, 1 - val[1][:, 0], POINTS, context.settings.serving)
    for found in (first, second):
        assert {name: (band.low, band.high) for name, band in found.points.items()} == wanted
        assert (found.rule, found.limit, found.images) == ("refer_share", 0.1, 200)
        assert all(band.on["validation"].images == 20 for band in found.points.values())
    assert first.points["argmax"].on["test"] != second.points["argmax"].on["test"]
    assert context.logged["band_low_youden"] == wanted["youden"][0] and "test_undecided_argmax" in context.logged


def test_nothing_is_chosen_without_validation_images_or_on_those_of_another_split(context, caplog):
    val, test = images(200, 0), images(90, 1)
    with caplog.at_level(logging.WARNING, logger="cxr.test"):
        assert chosen(context, test=test) is None
        assert chosen(context, seen="another split", val=val, test=test) is None
    assert caplog.text.count("no band of referral is chosen") == 2 and not context.logged


@pytest.mark.parametrize("register", ["true", "false"])
def test_a_risk_out_of_reach_stops_what_is_to_be_registered_and_nothing_else(context, caplog, register):
    sample, _ = images(200, 0)
    context.settings = settings_with({"serving.risk": 0.1, "registry.register": register})
    wrong = np.where(sample.labels[:, None] == 0, [0.0, 0.5, 0.5], [1.0, 0.0, 0.0])  # as sure as can be
    given = {"val": (sample, wrong), "test": images(90, 1)}
    words = r"serving\.risk=0\.1: no band around the threshold of argmax leaves so few wrong"
    if register == "true":
        with pytest.raises(CxrError, match=words):
            chosen(context, **given)
        return
    with caplog.at_level(logging.WARNING, logger="cxr.test"):
        assert chosen(context, **given) is None
    assert re.search(rf"{words}.*No band of referral is chosen", caplog.text) and not context.logged
