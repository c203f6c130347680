"""Temperature and thresholds come from validation alone: the test part could say anything."""

import numpy as np
import pytest
from PIL import Image

from cxr.errors import CxrError
from cxr.evaluation import assess, gallery, tuning
from cxr.evaluation.cam import Activation
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from cxr.models.bundle import Bundle
from tests.helpers import network, settings_with, small_set

CALIBRATION = settings_with({}).calibration


@pytest.fixture(scope="module")
def net():
    return network()


def test_the_test_part_decides_nothing(tmp_path, net):
    manifest = small_set(tmp_path)
    before = Bundle(net)
    tuning.tune(before, manifest, CALIBRATION, "cpu")
    assert before.temperature != 1 and set(before.operating_points) == {"youden", "sensitive"}
    test = (manifest.rows["split"] == "test").to_numpy()
    manifest.rows.loc[test, "label"] = manifest.rows.loc[test, "label"].to_numpy()[::-1]
    for file in manifest.split("test").files():
        Image.new("L", (48, 48)).save(file)
    after = Bundle(net)
    tuning.tune(after, manifest, CALIBRATION, "cpu")
    assert (after.temperature, after.operating_points) == (before.temperature, before.operating_points)
    val = (manifest.rows["split"] == "val").to_numpy()
    manifest.rows.loc[val, "label"] = manifest.rows.loc[val, "label"].to_numpy()[::-1]
    tuning.tune(after, manifest, CALIBRATION, "cpu")
    assert after.temperature != before.temperature, "validation labels must decide, else this test shows nothing"


def test_temperature_can_be_left_out(net):
    rng = np.random.default_rng(0)
    settings = settings_with({"calibration.temperature": "none"}).calibration
    assert tuning.choose(5 * rng.normal(size=(50, 3)), rng.integers(0, 3, 50), settings)[0] == 1.0


def test_answers_that_are_not_finite_are_refused(tmp_path, net):
    predictor = Predictor(Bundle(net))
    predictor.logits = lambda rasters: np.full((len(rasters), 3), np.nan)
    with pytest.raises(CxrError, match="not finite"):
        tuning.logits_of(predictor, small_set(tmp_path).split("val"), 4)


def test_operating_points_are_the_bundles(net):
    labels = np.array([0] * 20 + [1] * 10 + [2] * 10)
    logits = np.random.default_rng(0).normal(size=(40, 3)) + np.eye(3)[labels]
    sample = Sample.made(labels, np.arange(40).astype(str), net.classes, 0)
    found = assess.assess(sample, logits, Bundle(net, 2.0, {"youden": 0.0, "sensitive": 1.01}), [0.1])
    points = {p["name"]: p["scores"] for p in found["operating_points"]}
    assert points["youden"]["sensitivity"]["value"] == 1 and points["youden"]["specificity"]["value"] == 0
    assert points["sensitive"]["sensitivity"]["value"] == 0 and points["sensitive"]["specificity"]["value"] == 1
    assert found["calibration"]["before"]["nll"] != found["calibration"]["after"]["nll"]


def test_the_gallery_shows_the_surest_mistakes_first(tmp_path, net):
    part, predictor = small_set(tmp_path).split("test"), Predictor(Bundle(net))
    probabilities = np.full((len(part), 3), 0.1)
    wrong = (part.labels() + 1) % 3
    sure = np.linspace(0.4, 0.8, len(part))
    probabilities[np.arange(len(part)), wrong] = sure
    probabilities[0] = 0.98 * np.eye(3)[part.labels()[0]] + 0.01
    found = gallery.mistakes(part, probabilities, predictor, Activation.of(predictor, net), 4)
    assert [one.probability for one in found] == sorted(sure[1:], reverse=True)[:4]
    assert all(one.truth != one.prediction for one in found)
    assert found[0].picture.shape == (64, 64, 3)
    assert gallery.sheet(found, True) and gallery.sheet([], False)
