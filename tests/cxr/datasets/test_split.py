"""Splits share no patients, keep class shares and are reproducible; splits without a class are refused."""

import numpy as np
import pandas as pd
import pytest

from cxr.datasets import split
from cxr.datasets.patients import PSEUDONYMS, STUDIES, pseudonym
from cxr.errors import CxrError

CLASSES = ("normal", "bacteria", "virus")


def table(patients: int = 300, official: tuple[str | None, ...] = ("train", "test"), seed: int = 0) -> pd.DataFrame:
    """Patients with one to eight images; some have bacterial and viral ones, as in the Kermany dataset."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        part = official[0] if rng.random() < 0.85 else official[-1]
        labels = ["normal"] if rng.random() < 0.3 else list(rng.choice(["bacteria", "virus"], 2))
        for number in range(int(rng.geometric(0.6))):
            label = labels[number % len(labels)]
            rows.append((f"{part}/{label}/{patient}-{number}.jpeg", label, f"{part or 'all'}/{patient}", part))
    return pd.DataFrame(rows, columns=["path", "label", "patient", "official_split"])


def assign(rows, **changed):
    defaults = {
        "names": ("normal", "bacteria", "virus"),
        "val_size": 0.2,
        "test_size": 0.15,
        "subset_size": None,
        "seed": 0,
    }
    return split.assign(rows, **defaults | changed)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("official", [("train", "test"), (None,)], ids=["official test split", "none"])
def test_no_patient_is_in_two_splits(seed, official):
    assigned = assign(table(official=official, seed=seed), seed=seed)
    assert (assigned.groupby("patient")["split"].nunique() == 1).all()
    assert set(assigned["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize("seed", range(5))
def test_splits_have_the_requested_share_of_each_class(seed):
    assigned = assign(table(600, official=(None,), seed=seed), seed=seed)
    counts = pd.crosstab(assigned["label"], assigned["split"])
    shares = counts.div(counts.sum(1), axis=0)
    assert (shares["test"] - 0.15).abs().max() < 0.02
    assert (shares["val"] - 0.85 * 0.2).abs().max() < 0.02


def test_the_official_test_split_is_kept():
    rows = table()
    assigned = assign(rows)
    assert set(assigned.loc[assigned["split"] == "test", "path"]) == set(
        rows.loc[rows["official_split"] == "test", "path"]
    )


def test_splits_depend_on_the_seed_and_not_on_the_order_of_rows():
    rows = table()
    assigned = assign(rows)
    shuffled = assign(rows.sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(assigned, shuffled)
    assert (assign(rows, seed=1)["split"] != assigned["split"]).any()


@pytest.mark.parametrize("kind", [PSEUDONYMS, STUDIES])
def test_splits_of_dicom_files_and_studies_do_not_depend_on_the_key_of_pseudonyms(monkeypatch, tmp_path, kind):
    rows = table(official=(None,))

    def with_a_key_of(user):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / user))
        return assign(rows.assign(patient=rows["patient"].map(lambda name: pseudonym(name).replace(PSEUDONYMS, kind))))

    mine, theirs = with_a_key_of("me"), with_a_key_of("them")
    assert (mine["patient"] != theirs["patient"]).all()
    pd.testing.assert_series_equal(mine["split"], theirs["split"])
    assert (mine.groupby("patient")["split"].nunique() == 1).all()


def test_patients_with_many_images_are_spread_over_the_splits():
    assigned = assign(table(600, official=(None,)))
    images = assigned.groupby(["split", "patient"]).size().groupby("split").mean()
    assert images.max() / images.min() < 1.5


def test_a_subset_keeps_class_shares():
    rows = table(600)
    assigned = assign(rows, subset_size=200)
    assert len(assigned) == 200
    shares = assigned["label"].value_counts(normalize=True) - rows["label"].value_counts(normalize=True)
    assert shares.abs().max() < 0.02
    assert (assigned.groupby("patient")["split"].nunique() == 1).all()
    assert len(assign(rows, subset_size=10**6)) == len(rows)


def test_a_class_without_patients_is_refused():
    with pytest.raises(CxrError, match=r"the val split would have no images of .*change data\.val_size"):
        assign(table(), val_size=1e-6)
    assert set(assign(table(), val_size=0)["split"]) == {"train", "test"}
    few = table(300)
    few = few[(few["label"] != "virus") | (few["official_split"] == "test")]
    with pytest.raises(CxrError, match=r"no images of virus"):
        assign(few)


def test_two_classes_are_split_by_patient():
    rows = table()
    rows["label"] = rows["label"].replace({"bacteria": "pneumonia", "virus": "pneumonia"})
    assigned = assign(rows, names=("normal", "pneumonia"))
    assert set(assigned["label"]) == {"normal", "pneumonia"}
    assert (assigned.groupby("patient")["split"].nunique() == 1).all()


@pytest.mark.parametrize("classes", [1, 2, 3, 7, 8, 20])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_patients_judged_many_at_once_are_chosen_as_one_after_the_other(classes, share, monkeypatch):
    monkeypatch.setattr(split, "_AT_ONCE", 16)
    rng = np.random.default_rng(classes)
    for count in (0, 1, 400):
        images = rng.poisson(0.7, (count, classes))
        target = images.sum(0) * share
        total, expected = np.zeros(classes), []
        for patient in images:
            new_total = total + patient
            closer = np.abs(target - new_total).sum() < np.abs(target - total).sum()
            expected.append(bool(closer and (new_total <= target + 1).all()))
            total = new_total if expected[-1] else total
        assert split._taken(images, target).tolist() == expected
