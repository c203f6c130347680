"""What is known of the patients and images is told by split, and nothing that is not known."""

import pandas as pd

from cxr.datasets.characteristics import describe
from cxr.datasets.manifest import COLUMNS, Manifest


def manifest(**extras):
    splits = ["train"] * 6 + ["test"] * 2
    rows = pd.DataFrame(dict.fromkeys(COLUMNS, "x") | {"split": splits} | extras)
    return Manifest(rows, "root", ("normal", "pneumonia"))


def test_ages_and_shares_by_split():
    sexes = ["male", "female", "female", "", "female", "female", "male", "male"]
    ages = [1.0, 2.0, 3.0, None, 4.0, 5.0, None, None]
    told = {(row["name"], row["split"]): row["text"] for row in describe(manifest(age=ages, sex=sexes))}
    assert told == {
        ("age", "train"): "median 3 years, quartiles 2 and 4, 17% unknown",
        ("age", "test"): "100% unknown",
        ("sex", "train"): "female 67%, male 17%, unknown 17%",
        ("sex", "test"): "male 100%",
    }


def test_many_values_are_counted_and_what_nobody_knows_is_left_out():
    told = describe(manifest(view=list("ABCDEFGH"), site="", scanner=[""] * 8))
    assert [row["name"] for row in told] == ["view", "view"]
    assert told[0]["text"].endswith("2 others 33%")
    assert describe(manifest()) == []
