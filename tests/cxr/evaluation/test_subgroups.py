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


def test_dicom_files_are_as_grey_as_pictures():
    modes = ["L", "I;16", "DICOM MONOCHROME1 12", "DICOM MONOCHROME2 8", "RGB", "P"]
    assert [subgroups._colours(mode) for mode in modes] == ["grey"] * 4 + ["colour"] * 2


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
    assert all(result.patients >= subgroups.LEAST for result in results)


def test_a_property_that_all_images_share_is_left_out(tmp_path):
    groups = subgroups.groups(small_set(tmp_path).split("test"))
    assert "image size" not in groups and "colour mode" not in groups


def told(folder):
    """A test split of 60 images with ages, sexes and views, the first of each sex right and all others wrong."""
    split = small_set(folder, per_class=80).split("test")
    ages = [0.5, 1, 4.999, 5, 17.9, 18, 39, 40, 64.9, 65, 99, None] * 5
    split.rows["age"] = ages
    split.rows["sex"] = ["male", "female", ""] * 20
    split.rows["view"] = ["PA"] * 57 + ["AP"] * 3
    return split


def test_what_a_table_says_comes_first_with_ages_in_bands(tmp_path):
    split = told(tmp_path)
    groups = subgroups.groups(split)
    assert list(groups)[:3] == ["age", "sex", "view"]
    bands = [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert groups["age"].tolist()[:12] == [list(subgroups.AGE_BANDS)[band] for band in bands] + ["unknown"]


def test_scores_by_sex_are_those_of_its_images_and_small_groups_are_named(tmp_path):
    split = told(tmp_path)
    labels = split.labels()
    right, wrong = np.eye(3)[labels], np.roll(np.eye(3)[labels], 1, 1)
    probabilities = np.where(split.rows["sex"].to_numpy()[:, None] == "male", right, wrong)
    results = subgroups.by_group(split, Sample.of(split, 0), probabilities)
    by_sex = {result.group: result.scores["accuracy"].value for result in results if result.question == "sex"}
    assert by_sex == {"female": 0, "male": 1, "unknown": 0}
    ages = [result.group for result in results if result.question == "age"]
    assert ages == list(subgroups.AGE_BANDS)[1:]  # in their order
    assert [result.group for result in results if result.question == "view"] == ["PA"]
    small = subgroups.too_small(split)
    assert small["age: below 1 year"] == 5 and small["age: unknown"] == 5 and small["view: AP"] == 3
    assert not any(f"{result.question}: {result.group}" in small for result in results)
