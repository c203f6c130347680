"""Changed pictures stay pictures, and the unchanged ones score as in the evaluation."""

import numpy as np
import pytest

from cxr.evaluation import robustness, scores
from cxr.evaluation.cam import Activation
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from cxr.models.bundle import Bundle
from tests.helpers import network, small_set

GREY = np.random.default_rng(0).integers(1, 256, (64, 64), dtype=np.uint8)


@pytest.mark.parametrize("name", robustness.CHANGES)
def test_a_changed_picture_is_a_picture(name):
    changed = robustness.CHANGES[name](GREY)
    assert changed.shape == GREY.shape and changed.dtype == np.uint8
    assert (name == "as it is") == np.array_equal(changed, GREY)


def test_masks_are_where_they_say():
    border, corners = (
        robustness.CHANGES["border masked (10 %)"](GREY),
        robustness.CHANGES["corners masked (20 %)"](GREY),
    )
    assert not border[:6].any() and not border[:, -6:].any() and np.array_equal(border[6:-6, 6:-6], GREY[6:-6, 6:-6])
    assert not corners[:13, :13].any() and not corners[-13:, -13:].any()
    assert np.array_equal(corners[20:40], GREY[20:40])


def test_unchanged_pictures_score_as_ever(tmp_path):
    net = network()
    predictor, part = Predictor(Bundle(net)), small_set(tmp_path).split("test")
    found = robustness.robustness(predictor, Activation.of(predictor, net), part, 0, None, 4)
    readers = [file.read_bytes for file in part.files()]
    theirs = scores.estimates(Sample.of(part, 0), predictor.predict(readers, 8))
    first = found["table"][0]
    assert first["changed"] == 0
    assert first["scores"]["macro_f1"] == theirs["macro_f1"]
    assert found["images"] == len(part) and 0 <= found["inside"] <= 1
    assert len(found["table"]) == len(robustness.CHANGES)


def test_a_sample_takes_whole_patients(tmp_path):
    part = small_set(tmp_path, per_class=24).split("test")
    part.rows["patient"] = [f"p{i // 3}" for i in range(len(part))]
    rows = robustness._chosen(part, 0, 7)
    assert len(rows) == 6
    chosen = part.rows["patient"].iloc[rows]
    assert (chosen.value_counts() == 3).all()
    assert len(robustness._chosen(part, 0, None)) == len(part)
