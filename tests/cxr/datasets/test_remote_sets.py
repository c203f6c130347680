"""A set in a bucket gives the manifest that the same set in a folder gives, and each image is read once for it."""

import io
import zipfile

import numpy as np
import pandas as pd
import pytest

from cxr.common import remote
from cxr.common.remote import Remote
from cxr.datasets import inspection, labelled, layouts, sources
from cxr.datasets.manifest import Manifest, read_verified
from cxr.errors import CxrError
from cxr.imaging.preprocess import InputSpec
from cxr.loading.disk_cache import DiskCache
from cxr.loading.rasters import open_rasters
from tests.cxr.imaging.test_dicom import NOISE, file_of
from tests.helpers import png, settings_with, small_set

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """A set in the official layout, with a second copy, a DICOM file, an unreadable one and what is no image."""
    root = tmp_path / "set"
    for number in range(6):
        name = ("NORMAL/IM-%d-1.png", "PNEUMONIA/person%d_bacteria_1.png", "PNEUMONIA/person%d_virus_1.png")[number % 3]
        for above in ("train", "copy/train"):
            file = root / above / (name % number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(RNG.integers(0, 256, (40, 40), dtype=np.uint8)) if above == "train" else b"")
            if above != "train":
                file.write_bytes((root / "train" / (name % number)).read_bytes())
    (root / "train/NORMAL/IM-90-1.dcm").write_bytes(file_of(NOISE))
    (root / "train/NORMAL/IM-91-1.png").write_bytes(b"\x89PNG and no more")
    (root / "train/NORMAL/notes.txt").write_text("no image")
    return root


def data_of(path, **more):
    return settings_with({"data.path": path} | {f"data.{name.replace('__', '.')}": v for name, v in more.items()}).data


def surveyed(root):
    listing = layouts.scan(root)
    return inspection.survey(root, listing, workers=2, max_unreadable=0.5)


def test_the_survey_is_that_of_a_folder(bucket, folder):
    there = Remote(bucket.put_tree(folder, "xrays/set"))
    expected, unreadable = surveyed(folder)
    bucket.proxy.cuts = [100, 200]
    listing = layouts.scan(there)
    assert listing == layouts.scan(folder) and len(listing) == 8
    bucket.proxy.requests.clear()
    table, bad = inspection.survey(there, listing, workers=2, max_unreadable=0.5)
    pd.testing.assert_frame_equal(table, expected)
    assert bad == unreadable and [path for path, _ in bad] == ["train/NORMAL/IM-91-1.png"]
    assert remote.take_retries() == 2
    assert sorted(bucket.reads()) == sorted(f"xrays/set/{item.path}" for item in listing)


def test_a_store_that_goes_away_is_no_unreadable_image(bucket, folder):
    there = Remote(bucket.put_tree(folder, "set"))
    listing = layouts.scan(there)
    bucket.proxy.always = 10
    with pytest.raises(CxrError, match=r"s3://xrays/set/train/.*: 5 attempts failed"):
        inspection.survey(there, listing, max_unreadable=0.5)


def test_sources_at_urls(bucket, folder, tmp_path):
    url = bucket.put_tree(folder, "set")
    source = sources.fetch(data_of(f"{url}/"), 0)
    assert (
        source.root == Remote(url) and source.description["address"] == url and source.description["kind"] == "folder"
    )
    assert sources.fetch(data_of(folder.as_uri()), 0).root == folder
    for path, words in (
        ("s3://none/set", "data path s3://none/set does not exist, nor does s3://none; expected a folder"),
        (f"{url}s", "data path s3://xrays/sets does not exist; expected"),
        (f"{url}/train/NORMAL/notes.txt", "is neither a folder nor a .zip"),
    ):
        with pytest.raises(CxrError, match=words):
            sources.fetch(data_of(path), 0)


def test_an_archive_is_copied_once_for_each_content(bucket, tmp_path):
    data = data_of(bucket.put("sets/a.zip", zipped(3)), cache_dir=tmp_path / "cache")
    first = sources.fetch(data, 0)
    assert len(list(first.root.rglob("*.jpeg"))) == 3 and first.description["kind"] == "zip"
    assert sources.fetch(data, 0).root == first.root and len(bucket.reads()) == 1
    bucket.put("sets/a.zip", zipped(4))
    assert len(list(sources.fetch(data, 0).root.rglob("*.jpeg"))) == 4
    bucket.put("sets/a.zip", b"no archive")
    with pytest.raises(CxrError, match="is not a zip archive"):
        sources.fetch(data, 0)
    with pytest.raises(CxrError, match=r"s3://xrays/sets/a\.zip has SHA-256 .*, expected data\.sha256=0000"):
        sources.fetch(data.model_copy(update={"sha256": "0" * 64}), 0)


def zipped(count: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(count):
            file.writestr(f"train/NORMAL/IM-{number}-1.jpeg", bytes(300))
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["csv", "xlsx", "parquet"])
@pytest.mark.parametrize("where", ["{}", "s3://xrays/set/{}", "../set/{}"])
def test_tables_of_labels_may_be_in_a_bucket_and_name_what_is_there(bucket, where, suffix):
    rows = pd.DataFrame({"file": ["a.png", "b.png", "c.png"], "finding": ["normal", "pneumonia", "normal"]})
    buffer = io.BytesIO()
    {"csv": rows.to_csv, "xlsx": rows.to_excel, "parquet": rows.to_parquet}[suffix](buffer, index=False)
    bucket.put(f"set/labels.{suffix}", buffer.getvalue())
    for name in ("a.png", "sub/b.png", "c.png"):
        bucket.put(f"set/{name}", name.encode())
    names = {"labels": where.format(f"labels.{suffix}"), "columns__path": "file", "columns__label": "finding"}
    data = data_of("s3://xrays/set", classes=2, **names)
    listing = labelled.listing(Remote("s3://xrays/set"), data)
    assert [(image.path, image.label) for image in listing.images] == [
        ("a.png", "normal"),
        ("c.png", "normal"),
        ("sub/b.png", "pneumonia"),
    ]
    assert listing.description["labels"] == f"s3://xrays/set/labels.{suffix}"


def test_a_table_that_is_not_there_or_cannot_be_reached_is_told(bucket):
    names = {"columns__path": "file", "columns__label": "finding", "classes": 2}
    root = Remote("s3://xrays/set")
    with pytest.raises(CxrError, match=r"table of labels s3://xrays/set/l\.csv does not exist; give data\.labels as"):
        labelled.listing(root, data_of(root.url, labels="l.csv", **names))
    bucket.put("set/l.csv", b"file,finding\na.png,normal\n")
    bucket.proxy.always = 5
    with pytest.raises(CxrError, match=r"^s3://xrays/set/l\.csv: 5 attempts failed"):
        labelled.listing(root, data_of(root.url, labels="l.csv", **names))


def test_a_manifest_keeps_the_url_and_its_images_are_checked(bucket, tmp_path):
    here = small_set(tmp_path, per_class=2)
    url = bucket.put_tree(tmp_path, "set")
    Manifest(here.rows, Remote(url), here.classes).save(tmp_path / "split")
    loaded = Manifest.load(tmp_path / "split")
    assert loaded.root == Remote(url) and loaded.digest == here.digest
    assert read_verified(loaded, 0) == here.files()[0].read_bytes()
    bucket.put(f"set/{here.rows['path'][0]}", b"other")
    with pytest.raises(CxrError, match=r"s3://xrays/set/.* has changed since the split was made"):
        read_verified(loaded, 0)
    with pytest.raises(CxrError, match=r"s3://xrays/none/.*: No such file or directory; restore the image"):
        read_verified(Manifest(here.rows, Remote("s3://xrays/none"), here.classes), 0)


def test_rasters_are_those_of_the_files_and_each_image_is_read_once(bucket, tmp_path):
    here = small_set(tmp_path, per_class=30)
    there = Manifest(here.rows, Remote(bucket.put_tree(tmp_path, "set")), here.classes)
    spec, cache = InputSpec(size=32, resize=36), DiskCache(tmp_path / "cache", 1.0)
    bucket.proxy.cuts = [50] * 3
    every = np.arange(len(here))
    records = open_rasters(there, spec, cache).records(every)
    assert len(bucket.reads()) == len(here) + 3 and remote.take_retries() == 3
    assert (records == open_rasters(here, spec, None).records(every)).all()
    bucket.proxy.requests.clear()
    assert (open_rasters(there, spec, cache).records(every) == records).all() and not bucket.proxy.requests
