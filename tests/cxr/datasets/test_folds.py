"""Folds part images without leakage, alike and reproducibly; together they validate every image once."""

import numpy as np
import pandas as pd
import pytest

from cxr.datasets import folds, leakage, split
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.errors import CxrError

CLASSES = ("normal", "bacteria", "virus")
FOLDS = 4


def surveyed(patients: int = 120, official: str | None = "test") -> pd.DataFrame:
    """One to three random thumbnails a patient; every tenth patient has a copy of the first image of the one before."""
    rng = np.random.default_rng(0)
    rows: list[dict] = []
    for patient in range(patients):
        part = official if patient % 11 == 10 else None
        for number in range(1 + patient % 3):
            pixels = rng.integers(0, 256, 1024, dtype=np.uint8).tobytes()
            rows.append(
                {
                    "path": f"{patient:03}-{number}.png",
                    "label": CLASSES[patient % 3] if patient % 7 else CLASSES[number % 2 + 1],
                    "patient": f"all/{patient}",
                    "official_split": part,
                    "sha256": f"{patient}-{number}",
                    "pixel_hash": f"{patient}-{number}",
                    "phash": int(rng.integers(0, 2**63)),
                    "thumbnail": pixels,
                    **{"width": 32, "height": 32, "mode": "L"},
                }
            )
    table = pd.DataFrame(rows)
    for patient in range(10, patients, 10):
        copy, original = f"{patient:03}-0.png", f"{patient - 1:03}-0.png"
        kind = ["pixel_hash"] if patient % 20 else ["phash", "thumbnail"]  # exact, or near with other pixels
        table.loc[table["path"] == copy, kind] = table.loc[table["path"] == original, kind].to_numpy()
    return table


def fold(table: pd.DataFrame, number: int, count: int = FOLDS, seed: int = 0) -> tuple[Manifest, dict]:
    """The manifest of a fold as `prepare_split` makes it, and its leak report."""
    rows = split.assign(
        table,
        names=CLASSES,
        val_size=0.2,
        test_size=0.15,
        subset_size=None,
        seed=seed,
        folds=count,
        fold=number,
        near_duplicate_bits=6,
    )
    kept, report = leakage.resolve(rows, 6)
    return Manifest(kept[COLUMNS], "root", CLASSES), report


@pytest.fixture(scope="module", params=["test", None], ids=["official test split", "none"])
def made(request) -> list[tuple[Manifest, dict]]:
    table = surveyed(official=request.param)
    return [fold(table, number) for number in range(FOLDS)]


def test_every_image_outside_the_test_split_is_validated_once(made):
    manifests = [manifest for manifest, _ in made]
    validated = [path for manifest in manifests for path in manifest.split("val").rows["path"]]
    rows = manifests[0].rows
    assert sorted(validated) == sorted(rows.loc[rows["split"] != "test", "path"])
    assert len({tuple(manifest.split("test").rows["path"]) for manifest in manifests}) == 1
    assert folds.complete(manifests) and folds.complete(manifests[::-1])
    assert not folds.complete(manifests[:-1])
    assert not folds.complete([*manifests[:-1], manifests[0]])
    assert len({manifest.cross_validated().digest for manifest in manifests}) == 1


def test_patients_and_duplicates_share_a_fold(made):
    for manifest, report in made:
        assert (manifest.rows.groupby("patient")["split"].nunique() == 1).all()
        across = {name for kind in ("exact", "near") for name in report[kind]["by_split"] if "-" in name}
        assert all("test" in name for name in across), across
        assert all(image["split"] != "test" for image in report["dropped"])
        assert report["exact"]["groups"] > 3 and report["near"]["groups"] > 3


def test_related_images_are_those_linked_by_any_chain():
    table = surveyed()
    groups = leakage.related(table, 6)
    together = pd.Series(groups, index=table["path"])
    assert together["009-0.png"] == together["010-0.png"] == together["010-1.png"]
    assert together["000-0.png"] != together["001-0.png"]
    renamed = table.assign(patient=[f"{hash(name)}" for name in table["patient"]])
    np.testing.assert_array_equal(leakage.related(renamed, 6), groups)


def test_every_fold_has_its_share_of_each_class(made):
    counts = pd.DataFrame([manifest.split("val").rows["label"].value_counts() for manifest, _ in made])
    share = counts / counts.sum()
    assert (share - 1 / FOLDS).abs().to_numpy().max() < 0.08


def test_folds_depend_on_the_seed_and_not_on_the_order_of_rows():
    table = surveyed()
    first = fold(table, 1)[0]
    assert fold(table.sample(frac=1, random_state=1), 1)[0].digest == first.digest
    assert fold(table, 1, seed=1)[0].digest != first.digest


def test_too_few_patients_of_a_class_are_refused_with_what_is_allowed():
    table = surveyed()
    virus = (table["label"] == "virus") & (table["official_split"] != "test")
    few = table[~virus | table["patient"].isin([f"all/{n}" for n in (2, 8, 5)])]
    with pytest.raises(CxrError, match=r"data\.folds=4: .* at least 4 .* got 3 of virus .*give at most 3 folds"):
        fold(few, 0)
    assert fold(few, 0, count=3)
    fewer = table[~virus | table["patient"].isin(["all/2"])]
    with pytest.raises(CxrError, match=r"got 1 of virus .*folds need 2 or more; add patients"):
        fold(fewer, 0, count=2)
