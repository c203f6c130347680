"""Changed images stay images, and the unchanged ones score as in the evaluation."""

import numpy as np
import pytest

from cxr.evaluation import robustness, scores
from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from cxr.loading.rasters import ImageDataset
from cxr.models.bundle import Bundle
from tests.helpers import network, probabilities, small_set

GREY = np.random.default_rng(0).integers(1, 256, (64, 64), dtype=np.uint8)


@pytest.mark.parametrize("name", robustness.CHANGES)
def test_a_changed_image_is_an_image(name):
    changed = robustness.CHANGES[name](GREY)
    assert changed.shape == GREY.shape and changed.dtype == np.uint8
    assert (name == "unchanged") == np.array_equal(changed, GREY)


def test_masks_are_where_they_say():
    border, corners = (
        robustness.CHANGES["border masked (10 %)"](GREY),
        robustness.CHANGES["corners masked (20 %)"](GREY),
    )
    assert not border[:6].any() and not border[:, -6:].any() and np.array_equal(border[6:-6, 6:-6], GREY[6:-6, 6:-6])
    assert not corners[:13, :13].any() and not corners[-13:, -13:].any()
    assert np.array_equal(corners[20:40], GREY[20:40])


def test_unchanged_images_score_as_in_the_evaluation(tmp_path):
    net = network()
    bundle, split = Bundle(net, temperature=1.3), small_set(tmp_path).split("test")
    predictor, dataset = Predictor(bundle), ImageDataset(split, net.spec)
    maps = ClassActivationMap.of(predictor, net)
    result = robustness.robustness(
        predictor, maps, split, dataset, temperature=bundle.temperature, seed=0, most=None, batch_size=4
    )
    evaluated = scores.estimates(Sample.of(split, 0), probabilities(bundle, split))
    first = result.table[0]
    assert first.changed == 0
    assert first.scores["macro_f1"] == evaluated["macro_f1"]
    assert result.images == len(split) and 0 <= result.inside <= 1
    assert len(result.table) == len(robustness.CHANGES)


def test_a_sample_takes_whole_patients(tmp_path):
    split = small_set(tmp_path, per_class=24).split("test")
    split.rows["patient"] = [f"p{i // 3}" for i in range(len(split))]
    rows = robustness._chosen(split, 0, 7)
    assert len(rows) == 6
    assert (split.rows["patient"].iloc[rows].value_counts() == 3).all()
    assert len(robustness._chosen(split, 0, None)) == len(split)
