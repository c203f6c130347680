"""Subgroups come from file properties, and their scores are those of their images."""

import numpy as np
import pytest

from cxr.evaluation import subgroups
from cxr.evaluation.scores import Sample
from tests.helpers import small_set


@pytest.mark.parametrize(
    ("path", "series"),
    [
        ("train/PNEUMONIA/person12_bacteria_3.jpeg", "person"),
        ("IM-0115-0001.jpeg", "IM"),
        ("NORMAL2-IM-0587-0001-0002.jpeg", "NORMAL2-IM"),
        ("BACTERIA-1083680-0012.jpeg", "BACTERIA"),
        ("0001.png", "other"),
    ],
)
def test_series(path, series):
    assert subgroups._series(path) == series


def test_groups_and_their_scores(tmp_path):
    split = small_set(tmp_path, per_class=48).split("test")
    split.rows["mode"] = ["RGB" if i % 3 == 0 else "L" for i in range(len(split))]
    split.rows["width"] = [300 + i for i in range(len(split))]
    labels = split.labels()
    right, wrong = np.eye(3)[labels], np.roll(np.eye(3)[labels], 1, 1)
    probabilities = np.where(split.rows["mode"].to_numpy()[:, None] == "RGB", wrong, right)
    results = subgroups.by_group(split, Sample.of(split, 0), probabilities)
    by_colour = {result.group: result for result in results if result.question == "colour mode"}
    assert by_colour["grey"].scores["accuracy"].value == 1
    assert by_colour["colour"].scores["accuracy"].value == 0
    sizes = [result for result in results if result.question == "image size"]
    assert sum(result.images for result in sizes) == len(split)
    assert all(result.images >= subgroups.MIN_IMAGES for result in results)


def test_a_property_that_all_images_share_is_left_out(tmp_path):
    groups = subgroups.groups(small_set(tmp_path).split("test"))
    assert "image size" not in groups and "colour mode" not in groups
