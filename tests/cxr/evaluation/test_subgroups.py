"""Groups come from what the files tell, and their scores are those of their images."""

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
    part = small_set(tmp_path, per_class=48).split("test")
    part.rows["mode"] = ["RGB" if i % 3 == 0 else "L" for i in range(len(part))]
    part.rows["width"] = [300 + i for i in range(len(part))]
    labels = part.labels()
    probabilities = np.where(part.rows["mode"].to_numpy()[:, None] == "RGB", np.roll(np.eye(3)[labels], 1, 1),
                             np.eye(3)[labels])  # fmt: skip
    found = subgroups.by_group(part, Sample.of(part, 0), probabilities)
    by_colour = {row["group"]: row for row in found if row["question"] == "colour mode"}
    assert by_colour["grey"]["scores"]["accuracy"]["value"] == 1
    assert by_colour["colour"]["scores"]["accuracy"]["value"] == 0
    sizes = [row for row in found if row["question"] == "image size"]
    assert sum(row["images"] for row in sizes) == len(part)
    assert all(row["images"] >= subgroups.MIN_IMAGES for row in found)


def test_a_question_with_one_answer_is_not_asked(tmp_path):
    asked = subgroups.groups(small_set(tmp_path).split("test"))
    assert "image size" not in asked and "colour mode" not in asked
