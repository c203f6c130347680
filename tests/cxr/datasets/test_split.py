"""No patient in two splits, class shares kept, the same for a seed; impossible sizes are refused."""

import numpy as np
import pandas as pd
import pytest

from cxr.datasets import split
from cxr.errors import CxrError

CLASSES = ("normal", "bacteria", "virus")


def table(patients: int = 300, parts: tuple[str | None, ...] = ("train", "test"), seed: int = 0) -> pd.DataFrame:
    """Children with one to eight images; some have bacterial and viral ones, as in the real set."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        part = parts[0] if rng.random() < 0.85 else parts[-1]
        labels = ["normal"] if rng.random() < 0.3 else list(rng.choice(["bacteria", "virus"], 2))
        for number in range(int(rng.geometric(0.6))):
            label = labels[number % len(labels)]
            rows.append((f"{part}/{label}/{patient}-{number}.jpeg", label, f"{part or 'all'}/{patient}", part))
    return pd.DataFrame(rows, columns=["path", "label", "patient", "part"])


def cut(rows, **changed):
    return split.assign(
        rows, **{"classes": 3, "val_size": 0.2, "test_size": 0.15, "subset_size": None, "seed": 0} | changed
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("parts", [("train", "test"), (None,)], ids=["official test", "none"])
def test_no_patient_is_in_two_splits(seed, parts):
    made = cut(table(parts=parts, seed=seed), seed=seed)
    assert (made.groupby("patient")["split"].nunique() == 1).all()
    assert set(made["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_kept(seed):
    made = cut(table(600, parts=(None,), seed=seed), seed=seed)
    counts = pd.crosstab(made["label"], made["split"])
    shares = counts.div(counts.sum(1), axis=0)
    assert (shares["test"] - 0.15).abs().max() < 0.02
    assert (shares["val"] - 0.85 * 0.2).abs().max() < 0.02


def test_the_official_test_part_stays_as_it_is():
    rows = table()
    made = cut(rows)
    assert set(made.loc[made["split"] == "test", "path"]) == set(rows.loc[rows["part"] == "test", "path"])


def test_the_seed_decides_and_the_order_of_files_does_not():
    rows = table()
    made = cut(rows)
    again = cut(rows.sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(made, again)
    assert (cut(rows, seed=1)["split"] != made["split"]).any()


def test_patients_with_many_images_are_not_all_in_one_split():
    made = cut(table(600, parts=(None,)))
    images = made.groupby(["split", "patient"]).size().groupby("split").mean()
    assert images.max() / images.min() < 1.5


def test_a_subset_keeps_class_shares():
    rows = table(600)
    made = cut(rows, subset_size=200)
    assert len(made) == 200
    shares = made["label"].value_counts(normalize=True) - rows["label"].value_counts(normalize=True)
    assert shares.abs().max() < 0.02
    assert (made.groupby("patient")["split"].nunique() == 1).all()
    assert len(cut(rows, subset_size=10**6)) == len(rows)


def test_a_class_without_patients_is_refused():
    with pytest.raises(CxrError, match=r"the val part would have no images of .*change data\.val_size"):
        cut(table(), val_size=1e-6)
    few = table(300)
    few = few[(few["label"] != "virus") | (few["part"] == "test")]
    with pytest.raises(CxrError, match=r"no images of virus"):
        cut(few)


def test_two_classes():
    rows = table()
    rows["label"] = rows["label"].replace({"bacteria": "pneumonia", "virus": "pneumonia"})
    made = cut(rows, classes=2)
    assert set(made["label"]) == {"normal", "pneumonia"}
    assert (made.groupby("patient")["split"].nunique() == 1).all()
