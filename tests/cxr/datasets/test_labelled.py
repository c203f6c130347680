"""Labels from a table: what its rows mean, which are left out and counted, and what is refused in one clear line."""

import logging
import math

import numpy as np
import pandas as pd
import pytest

from cxr.datasets import inspection, leakage
from cxr.datasets.labelled import listing, read
from cxr.datasets.patients import PSEUDONYMS
from cxr.datasets.split import assign
from cxr.errors import CxrError
from tests.cxr.imaging.test_dicom import file_of
from tests.helpers import png, settings_with

CLASSES = ("normal", "pneumonia")
ROWS = {
    "file": ["a.png", "b.png", "sub/c.png", "d.png"],
    "finding": ["normal", "pneumonia", "pneumonia", "normal"],
    "person": ["007", "8", "8", "9"],
    "years": ["058Y", "6M", "?", "3"],
    "view": ["PA", "AP", "PA", "L"],
}


def settings(**changes):
    names = {"labels": "labels.csv", "classes": 2, "columns.path": "file", "columns.label": "finding", **changes}
    return settings_with({f"data.{name.replace('__', '.')}": value for name, value in names.items()}).data


def table(root, rows=ROWS, name="labels.csv", files=None):
    """Write the table and, empty but different, the images it names."""
    pd.DataFrame(rows).to_csv(root / name, index=False)
    for path in files if files is not None else rows["file"]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def by_path(root, **changes):
    return {image.path: image for image in read(root, settings(**changes), CLASSES).images}


def test_labels_patients_and_extras_come_from_the_table(tmp_path):
    number = "0071234567890"  # too long to be in a pseudonym by chance
    rows = {**ROWS, "person": [number, *ROWS["person"][1:]]}
    images = by_path(
        table(tmp_path, rows),
        columns__patient="person",
        columns__age="years",
        columns__view="view",
        columns__study="person",
    )
    assert list(images) == ["a.png", "b.png", "d.png", "sub/c.png"]
    assert [image.label for image in images.values()] == ["normal", "pneumonia", "normal", "pneumonia"]
    assert images["b.png"].patient == images["sub/c.png"].patient != images["a.png"].patient
    ages = {path: image.extras["age"] for path, image in images.items()}
    assert math.isnan(ages.pop("sub/c.png"))  # it cannot be read
    assert ages == {"a.png": 58, "b.png": 0.5, "d.png": 3}
    assert images["d.png"].extras["view"] == "L"
    # Numbers of persons and studies can lead to them, so that no manifest has them.
    assert not any(number in str(value) for value in (images["a.png"].patient, images["a.png"].extras["study"]))
    assert images["a.png"].official_split is None


def test_without_patients_every_image_is_one_and_a_warning_says_what_that_means(tmp_path, caplog):
    images = by_path(table(tmp_path))
    assert len({image.patient for image in images.values()}) == 4
    assert "4 of 4 images have no patient in the table" in caplog.text
    assert "images of one person can be in several splits" in caplog.text


def test_images_of_a_study_are_of_one_patient_whether_or_not_the_table_names_it(tmp_path):
    """Two exposures of a child in training and test would leak."""
    rows = ROWS | {"study": ["S1", "S1", "S2", ""], "person": ["", "8", "", ""]}
    root = table(tmp_path, rows)
    images = by_path(root, columns__study="study")
    assert images["a.png"].patient == images["b.png"].patient != images["sub/c.png"].patient
    assert images["d.png"].patient == "d.png" and "S1" not in images["a.png"].patient
    assert not images["a.png"].patient.startswith(PSEUDONYMS)  # a patient ID in the file says more
    images = by_path(root, columns__study="study", columns__patient="person")
    assert images["a.png"].patient == images["b.png"].patient and images["b.png"].patient.startswith(PSEUDONYMS)


def test_training_images_of_a_study_of_the_test_split_are_dropped_though_no_patient_is_known(tmp_path):
    """The patient ID of a DICOM file counts before the study."""
    names = [f"{number}.png" for number in range(10)]
    rows = {
        "file": [*names, "x.dcm", "y.dcm"],
        "finding": ["normal", "pneumonia"] * 6,
        "study": ["S1", "S2", "S3", "S3", "S4", "S4", "S5", "S6", "S1", "", "S7", "S7"],
        "part": ["test", "test", *["train"] * 7, "", "train", "test"],
    }
    root, rng = table(tmp_path, rows), np.random.default_rng(0)
    for name in names:
        (root / name).write_bytes(png(rng.integers(0, 256, (40, 56), dtype=np.uint8)))
    for name in ("x.dcm", "y.dcm"):
        (root / name).write_bytes(file_of(rng.integers(0, 4096, (40, 56), dtype=np.uint16), PatientID=name))
    found = read(root, settings(columns__split="part", columns__study="study"), CLASSES).images
    images, _ = inspection.survey(root, found, workers=1)
    patients = images.set_index("path")["patient"]
    assert patients["0.png"] == patients["8.png"] and patients["2.png"] == patients["3.png"] != patients["0.png"]
    assert patients["9.png"] == "train/9.png" and patients["x.dcm"] != patients["y.dcm"]
    splits = assign(images, names=CLASSES, val_size=0.0, test_size=0.2, subset_size=None, seed=0)
    kept, report = leakage.resolve(splits, 0)
    assert report["dropped"] == [{"path": "8.png", "split": "train", "why": "patient of the test split"}]
    assert not report["patients_in_two_splits"] and len(kept) == 11


def test_several_labels_can_mean_one_class_and_others_are_left_out_and_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rows = {
        "file": [f"{number}.png" for number in range(6)],
        "finding": ["No Finding", "Bacterial|Viral", "Viral|Mass", "Mass", "", "No Finding|Viral"],
    }
    mapping = "{No Finding: normal, Bacterial: pneumonia, Viral: pneumonia, Hernia: null}"
    found = read(table(tmp_path, rows), settings(separator="|", mapping=mapping), CLASSES)
    assert [image.label for image in found.images] == ["normal", "pneumonia", "pneumonia"]
    assert found.description["left_out"] == {"no label": 2, "several classes": 1}
    assert "2 labels stand for no class: 2 Mass" in caplog.text
    assert "6 rows, 3 images; left out: no label 2, several classes 1" in caplog.text


def test_columns_of_ones_are_labels(tmp_path):
    rows = {
        "file": ["a.png", "b.png", "c.png", "d.png"],
        "No": ["1.0", "0", "", "True"],
        "Yes": ["False", "true", "-1.0", "1.0"],
    }
    found = read(
        table(tmp_path, rows),
        settings(columns__label="['No', 'Yes']", mapping="{'No': normal, 'Yes': pneumonia}"),
        CLASSES,
    )
    assert [(image.path, image.label) for image in found.images] == [("a.png", "normal"), ("b.png", "pneumonia")]
    assert found.description["left_out"] == {"no label": 1, "several classes": 1}


@pytest.mark.parametrize(
    "filters, kept",
    [
        ("{view: [PA, AP]}", ["a.png", "b.png", "sub/c.png"]),
        ("{view: PA, finding: [normal, pneumonia]}", ["a.png", "sub/c.png"]),
        ("{age: {min: 0.5, max: 58}}", ["a.png", "b.png", "d.png"]),
        ("{years: {max: 5}}", ["b.png", "d.png"]),
        ("{person: [7, 8]}", ["a.png", "b.png", "sub/c.png"]),
        ("{person: ['007', '8']}", ["a.png", "b.png", "sub/c.png"]),
        ("{person: ['7', 8]}", ["b.png", "sub/c.png"]),
    ],
)
def test_filters_keep_rows_by_words_numbers_and_ranges(tmp_path, filters, kept):
    root = table(tmp_path, {**ROWS, "finding": ["normal", "pneumonia", "pneumonia", "normal"]})
    if kept == ["b.png", "sub/c.png"]:
        with pytest.raises(CxrError, match=r"no images of normal \(seen: 2 pneumonia\)"):
            by_path(root, filters=filters, columns__age="years")
        return
    assert list(by_path(root, filters=filters, columns__age="years")) == kept


def test_what_a_filter_leaves_out_is_counted(tmp_path):
    found = read(table(tmp_path), settings(filters="{view: [PA, AP]}"), CLASSES)
    assert found.description == {"labels": str(tmp_path / "labels.csv"), "left_out": {"filter view": 1}}


def test_given_splits_are_kept_with_val_as_training(tmp_path):
    rows = {**ROWS, "part": ["Train", "val", "test", ""]}
    images = by_path(table(tmp_path, rows), columns__split="part")
    assert [images[path].official_split for path in rows["file"]] == ["train", "train", "test", "train"]
    parts = {"train": ["a.png", "b.png"], "test": ["sub/c.png", "d.png"]}
    for split, files in parts.items():
        own = pd.DataFrame(ROWS)
        own[own["file"].isin(files)].to_csv(tmp_path / f"{split}.csv", index=False)
    images = by_path(tmp_path, labels="{train: train.csv, test: test.csv}")
    assert {path: image.official_split for path, image in images.items()} == {
        path: split for split, files in parts.items() for path in files
    }


def test_paths_can_be_made_of_columns_and_patients_of_a_part_of_one(tmp_path):
    rows = {"site": ["s1", "s2"], "number": ["p1-1", "p1-2"], "finding": ["normal", "pneumonia"]}
    root = table(tmp_path, rows, files=["s1/x_p1-1.png", "s2/x_p1-2.png"])
    options = {"columns__path": "{site}/x_{number}.png", "columns__patient": "number", "patient_pattern": r"p\d+"}
    images = by_path(root, **options)
    assert list(images) == ["s1/x_p1-1.png", "s2/x_p1-2.png"]
    assert len({image.patient for image in images.values()}) == 1
    with pytest.raises(CxrError, match=r"matches nothing in 2 of 2 rows: labels\.csv row 2, labels\.csv row 3"):
        by_path(root, **{**options, "patient_pattern": "q"})


def test_rows_that_agree_count_once(tmp_path, caplog):
    rows = {key: [*values, values[0], values[0]] for key, values in ROWS.items()}
    with caplog.at_level("INFO"):
        found = read(table(tmp_path, rows), settings(columns__patient="person"), CLASSES)
    assert "2 rows repeat an image: labels.csv row 6, labels.csv row 7" in caplog.text
    assert len(found.images) == 4 and found.description["left_out"] == {"double rows": 2}


def test_a_few_missing_files_are_left_to_be_reported_as_unreadable(tmp_path):
    rows = {"file": [f"{n}.png" for n in range(20)], "finding": ["normal", "pneumonia"] * 10}
    root = table(tmp_path, rows, files=[name for name in rows["file"] if name != "7.png"])
    assert "7.png" in by_path(root, max_unreadable=0.05)
    words = r"1 of 20 images do not exist below .*data\.max_unreadable=0\.01 allows: 7\.png; correct"
    with pytest.raises(CxrError, match=words):
        by_path(root)


FIRST_FIVE = r"0\.png .*, 1\.png .*, 2\.png .*, 3\.png .*, 4\.png .* and 1 more"
MANY = {"file": [f"{n}.png" for n in range(6)] * 2, "finding": ["normal"] * 6 + ["pneumonia"] * 6}


@pytest.mark.parametrize(
    "rows, changes, words",
    [
        (MANY, {}, f"6 images have more than one label: {FIRST_FIVE}; leave one"),
        (
            {**ROWS, "person": ["1"] * 4, "part": ["train", "train", "test", "test"]},
            {},
            r"1 patients are in two of the",
        ),
        (
            {**ROWS, "part": ["train", "fold3", "?", "test"]},
            {"columns__patient": None},
            r"2 rows are in an unknown split",
        ),
        ({**ROWS, "finding": ["normal"] * 4}, {}, r"no images of pneumonia \(seen: 4 normal\)"),
        (
            {**ROWS, "finding": ["normal", "X", "X", "Y"]},
            {},
            r"3 labels are no classes: 2 X, 1 Y; expected normal, pne",
        ),
        (
            ROWS,
            {"mapping": "{normal: healthy}"},
            "data.mapping leads to healthy, which is no class; expected normal, pn",
        ),
        (ROWS, {"columns__age": "Age"}, r"no column 'Age', which data\.columns\.age names; its columns are file, find"),
        (ROWS, {"columns__path": "x/{id}.png"}, r"no column 'id', which data\.columns\.path names"),
        (ROWS, {"filters": "{modality: CR}"}, r"no column 'modality', which data\.filters\.modality names"),
        (ROWS, {"filters": "{view: XX}"}, r"no row is left \(filter view 4\)"),
        (
            {**ROWS, "file": ["../a.png", "/etc/b.png", "c:/x", ""]},
            {},
            r"4 paths of the table lead out of the data fol",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(tmp_path, rows, changes, words):
    inside = [path for path in rows["file"] if path and path[0] not in "./c"]
    root = table(tmp_path, rows, files=inside)
    if "part" in rows:
        changes = {"columns__split": "part", "columns__patient": "person", **changes}
    changes = {key: value for key, value in changes.items() if value is not None}
    with pytest.raises(CxrError, match=words):
        by_path(root, **changes)


def test_a_patient_in_two_given_splits_is_shown_by_paths_not_by_name(tmp_path):
    root = table(tmp_path, {**ROWS, "person": ["secret"] * 4, "part": ["train", "train", "test", "test"]})
    with pytest.raises(CxrError, match=r"as by a\.png and sub/c\.png; correct the table") as caught:
        by_path(root, columns__split="part", columns__patient="person")
    assert "secret" not in str(caught.value)


def test_a_test_patient_without_a_split_elsewhere_is_no_contradiction(tmp_path):
    rows = {**ROWS, "person": ["1"] * 4, "part": ["test", "", "", "test"]}
    images = by_path(table(tmp_path, rows), columns__split="part", columns__patient="person")
    assert [images[path].official_split for path in rows["file"]] == ["test", "train", "train", "test"]


def test_without_a_table_names_of_folders_and_files_count(tmp_path):
    for path in ("NORMAL/a.png", "PNEUMONIA/b.png"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_bytes(path.encode())
    found = listing(tmp_path, settings_with({"data.classes": 2}).data)
    assert [image.label for image in found.images] == ["normal", "pneumonia"] and found.description == {}


def test_a_table_can_have_classes_of_the_users_own(tmp_path):
    data = settings(classes="[healthy, tuberculosis]", finding="tuberculosis", mapping="{normal: healthy}")
    with pytest.raises(CxrError, match=r"no images of tuberculosis \(seen: 2 healthy\)"):
        listing(table(tmp_path), data)
    data = data.model_copy(update={"mapping": {"normal": "healthy", "pneumonia": "tuberculosis"}})
    assert {image.label for image in listing(tmp_path, data).images} == {"healthy", "tuberculosis"}
