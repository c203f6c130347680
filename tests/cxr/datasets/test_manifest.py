"""A manifest is loaded as it was saved, or refused; changed images are detected."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from cxr.common.files import sha256_of
from cxr.datasets import manifest as manifests
from cxr.datasets.manifest import COLUMNS, Manifest, read_verified
from cxr.errors import CxrError


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    rows = []
    for number, (label, split) in enumerate([("normal", "train"), ("virus", "val"), ("bacteria", "test")] * 2):
        file = tmp_path / f"{number}.jpeg"
        file.write_bytes(f"image {number}".encode())
        rows.append([file.name, sha256_of(file), label, f"train/p{number}", split, 10, 20, "L"])
    return Manifest(pd.DataFrame(rows, columns=COLUMNS), tmp_path, ("normal", "bacteria", "virus"), {"kind": "folder"})


def test_a_saved_manifest_loads_unchanged(manifest, tmp_path):
    manifest.save(tmp_path / "split")
    loaded = Manifest.load(tmp_path / "split")
    pd.testing.assert_frame_equal(loaded.rows, manifest.rows, check_dtype=False)
    assert (loaded.digest, loaded.classes, loaded.root) == (manifest.digest, manifest.classes, tmp_path)


def test_the_digest_depends_on_content_and_not_on_order_or_root(manifest):
    moved = Manifest(manifest.rows.sample(frac=1, random_state=1), manifest.root / "x", manifest.classes)
    assert moved.digest == manifest.digest
    for column in ("sha256", "label", "patient", "split"):
        rows = manifest.rows.copy()
        rows.loc[0, column] = "other"
        assert Manifest(rows, manifest.root, manifest.classes).digest != manifest.digest
    assert Manifest(manifest.rows, manifest.root, ("a", "b", "c")).digest != manifest.digest


def test_an_edited_table_is_refused(manifest, tmp_path):
    manifest.save(tmp_path / "split")
    table = tmp_path / "split/manifest.csv"
    table.write_text(table.read_text().replace("virus", "normal", 1))
    with pytest.raises(CxrError, match="was changed after prepare_split wrote it; run prepare_split again"):
        Manifest.load(tmp_path / "split")


def test_a_missing_split_or_one_of_another_format_is_refused(manifest, tmp_path):
    with pytest.raises(CxrError, match="cannot be read"):
        Manifest.load(tmp_path / "none")
    manifest.save(tmp_path / "split")
    facts = json.loads((tmp_path / "split/split.json").read_text())
    (tmp_path / "split/split.json").write_text(json.dumps({**facts, "format": 0}))
    with pytest.raises(CxrError, match="has format 0, expected 1"):
        Manifest.load(tmp_path / "split")


def test_splits_have_labels_and_counts(manifest):
    test = manifest.split("test")
    assert list(test.labels()) == [1, 1]
    assert manifest.counts().loc[("val", "virus"), "images"] == 2
    assert manifest.counts().loc[("val", "normal"), "images"] == 0
    assert "6 images, 6 patients" in repr(manifest)


def test_a_changed_or_missing_image_is_refused_with_its_name(manifest, tmp_path):
    assert read_verified(manifest, 1) == b"image 1"
    (tmp_path / "1.jpeg").write_bytes(b"image 2")
    with pytest.raises(CxrError, match=r"1\.jpeg has changed since the split was made"):
        read_verified(manifest, 1)
    (tmp_path / "1.jpeg").unlink()
    with pytest.raises(CxrError, match=r"1\.jpeg: No such file"):
        read_verified(manifest, 1)


@pytest.mark.parametrize(
    ("labels", "digest"),
    [
        (["normal", "bacteria", "virus"], "ab180d1224b5085d3d8cdfcf7755b1e69c5b6401d0a537e2e688925f00236640"),
        (["normal", "pneumonia", "pneumonia"], "141fc2c0840cb5ecc7db799f743e87c065e380145d461770a7e76bd496ba7fc8"),
    ],
)
def test_the_digest_and_the_files_of_two_and_three_classes_never_change(tmp_path, labels, digest):
    splits = ("train", "val", "test")
    rows = [
        [f"{'abc'[n]}.png", str(n) * 64, labels[n], f"{'train' if n < 2 else 'test'}/{n + 1}", splits[n], 8, 8, "L"]
        for n in range(3)
    ]
    made = Manifest(pd.DataFrame(rows, columns=COLUMNS), tmp_path, tuple(dict.fromkeys(labels)))
    assert made.digest == digest
    made.save(tmp_path)
    assert list(json.loads((tmp_path / "split.json").read_text())) == ["format", "root", "classes", "digest", "source"]
    assert Manifest.load(tmp_path).finding == "pneumonia"


def test_the_finding_is_kept_and_counts(manifest, tmp_path):
    other = replace(manifest, finding="infection")
    assert other.digest != manifest.digest
    other.save(tmp_path / "split")
    loaded = Manifest.load(tmp_path / "split")
    assert loaded.finding == loaded.split("val").finding == "infection" and loaded.digest == other.digest


AGES = [58.0, 0.083, None, 4.333, 0.1 + 0.2, 70.0]


def with_extras(manifest: Manifest) -> Manifest:
    rows = manifest.rows.assign(age=AGES, sex=["male", "", "female", "O", "male", "NA"], site='Hanoi, "A"')
    return Manifest(rows, manifest.root, manifest.classes, manifest.source)


def test_what_a_table_says_is_saved_and_loaded_unchanged(manifest, tmp_path):
    told = with_extras(manifest)
    told.save(tmp_path / "split")
    loaded = Manifest.load(tmp_path / "split")
    pd.testing.assert_frame_equal(loaded.rows, told.rows, check_dtype=False)
    assert loaded.extras == told.extras == ["age", "sex", "site"]
    assert loaded.digest == told.digest != manifest.digest


def test_an_edited_age_is_refused(manifest, tmp_path):
    with_extras(manifest).save(tmp_path / "split")
    table = tmp_path / "split/manifest.csv"
    table.write_text(table.read_text().replace("58.0", "59.0"))
    with pytest.raises(CxrError, match="was changed after prepare_split wrote it"):
        Manifest.load(tmp_path / "split")


def test_a_manifest_without_a_table_is_what_it_always_was(manifest, tmp_path):
    """Bytes and digest, since runs of earlier versions are compared by them."""
    manifest.save(tmp_path / "split")
    first = (tmp_path / "split/manifest.csv").read_text().splitlines()
    assert first[0] == "path,sha256,label,patient,split,width,height,mode"
    assert first[1] == f"0.jpeg,{sha256_of(tmp_path / '0.jpeg')},normal,train/p0,train,10,20,L"
    assert manifest.digest == "930d5d3ac75bef5afcb48232ccec05a8a32facb4e2d8f6ad733e62b4c53b7b85"


def test_a_manifest_that_is_written_in_parts_is_the_same(manifest, tmp_path, monkeypatch):
    told = with_extras(manifest)
    told.save(tmp_path / "whole")
    for rows in (1, 4, 6):
        monkeypatch.setattr(manifests, "_AT_ONCE", rows)
        assert told.save(tmp_path / "parts") == told.digest == Manifest.load(tmp_path / "parts").digest
        for name in ("manifest.csv", "split.json"):
            assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    nothing = replace(told, rows=told.rows.iloc[:0])
    nothing.save(tmp_path / "nothing")
    head = (tmp_path / "whole/manifest.csv").read_bytes().splitlines(keepends=True)[0]
    assert (tmp_path / "nothing/manifest.csv").read_bytes() == head


@pytest.mark.parametrize("damage", [b'"', b"\xff", b"a,b,c,d,e,f,g,h,i,j,k,l\n"])
def test_a_damaged_table_is_refused_in_one_line(manifest, tmp_path, damage):
    manifest.save(tmp_path)
    with (tmp_path / "manifest.csv").open("ab") as table:
        table.write(damage)
    with pytest.raises(CxrError, match="run prepare_split again"):
        Manifest.load(tmp_path)
