"""Temperature and thresholds come from the validation split alone."""

import numpy as np
import pytest
from PIL import Image

from cxr.evaluation import assess, gallery, tuning
from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.evaluation.scores import Sample
from cxr.loading.rasters import ImageDataset
from cxr.models.bundle import Bundle
from tests.helpers import network, settings_with, small_set

CALIBRATION = settings_with({}).calibration


@pytest.fixture(scope="module")
def net():
    return network()


def val_of(manifest, net):
    return ImageDataset(manifest.split("val"), net.spec)


def test_the_test_split_decides_nothing(tmp_path, net):
    manifest = small_set(tmp_path)
    before = Bundle(net)
    tuning.tune(before, val_of(manifest, net), CALIBRATION, "cpu")
    assert before.temperature != 1 and set(before.operating_points) == {"youden", "sensitive"}
    test = (manifest.rows["split"] == "test").to_numpy()
    manifest.rows.loc[test, "label"] = manifest.rows.loc[test, "label"].to_numpy()[::-1]
    for file in manifest.split("test").files():
        Image.new("L", (48, 48)).save(file)
    after = Bundle(net)
    tuning.tune(after, val_of(manifest, net), CALIBRATION, "cpu")
    assert (after.temperature, after.operating_points) == (before.temperature, before.operating_points)
    val = (manifest.rows["split"] == "val").to_numpy()
    manifest.rows.loc[val, "label"] = manifest.rows.loc[val, "label"].to_numpy()[::-1]
    tuning.tune(after, val_of(manifest, net), CALIBRATION, "cpu")
    assert after.temperature != before.temperature, "validation labels must decide, else this test shows nothing"


def test_a_bundle_is_tuned_to_its_views(tmp_path):
    val, made = small_set(tmp_path).split("val"), Bundle(network())
    dataset = ImageDataset(val, made.network.spec)
    tuning.tune(made, dataset, CALIBRATION, "cpu")
    before = (made.temperature, made.operating_points)
    tuning.set_views(made, 2, dataset, CALIBRATION, "cpu")
    assert made.network.views == 2 and (made.temperature, made.operating_points) != before
    chosen = tuning.choose(predict_logits(Predictor(made), dataset, 64), val.labels(), CALIBRATION)
    assert (made.temperature, made.operating_points) == chosen
    tuning.set_views(made, 1, dataset, CALIBRATION, "cpu")
    assert (made.temperature, made.operating_points) == before


def test_temperature_can_be_left_out(net):
    rng = np.random.default_rng(0)
    settings = settings_with({"calibration.temperature": "none"}).calibration
    assert tuning.choose(5 * rng.normal(size=(50, 3)), rng.integers(0, 3, 50), settings)[0] == 1.0


def test_operating_points_are_the_bundles(net):
    labels = np.array([0] * 20 + [1] * 10 + [2] * 10)
    logits = np.random.default_rng(0).normal(size=(40, 3)) + np.eye(3)[labels]
    sample = Sample.from_labels(labels, np.arange(40).astype(str), net.classes, 0)
    result = assess.assess(sample, logits, Bundle(net, 2.0, {"youden": 0.0, "sensitive": 1.01}), [0.1])
    points = {point.name: point.scores for point in result.operating_points}
    assert points["youden"]["sensitivity"].value == 1 and points["youden"]["specificity"].value == 0
    assert points["sensitive"]["sensitivity"].value == 0 and points["sensitive"]["specificity"].value == 1
    assert result.calibration.before.nll != result.calibration.after.nll


def test_the_gallery_shows_the_most_confident_mistakes_first(tmp_path, net):
    split, predictor = small_set(tmp_path).split("test"), Predictor(Bundle(net))
    probabilities = np.full((len(split), 3), 0.1)
    wrong = (split.labels() + 1) % 3
    confidence = np.linspace(0.4, 0.8, len(split))
    probabilities[np.arange(len(split)), wrong] = confidence
    probabilities[0] = 0.98 * np.eye(3)[split.labels()[0]] + 0.01
    maps = ClassActivationMap.of(predictor, net)
    tiles = gallery.mistakes(split, ImageDataset(split, net.spec), probabilities, maps, 4)
    assert [tile.mistake.probability for tile in tiles] == sorted(confidence[1:], reverse=True)[:4]
    assert all(tile.mistake.truth != tile.mistake.prediction for tile in tiles)
    assert tiles[0].image.shape == (64, 64, 3)
    assert gallery.sheet(tiles, has_maps=True) and gallery.sheet([], has_maps=False)
