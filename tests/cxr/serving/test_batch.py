"""Many files: one row each, in order, none twice, and memory that does not grow with their number."""

import json
import logging
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest

from cxr.errors import CxrError
from cxr.serving import batch, inputs
from cxr.serving.service import MEASURED, Service, columns
from tests.helpers import CLASSES, png


class Counting(Service):
    """Counts what it is asked, and fails where it is told to."""

    asked = 0
    fail_after = 10**9

    def answer(self, values, **options):
        type(self).asked += len(values)
        if self.asked > self.fail_after:
            raise KeyboardInterrupt
        return super().answer(values, **options)


@pytest.fixture
def service(served, monkeypatch) -> Counting:
    monkeypatch.setattr(Counting, "asked", 0)
    return Counting(served.folder, threads=2, version="3")


@pytest.fixture
def folder(served, tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    for number, file in enumerate(served.manifest.files()):
        shutil.copy(file, root / f"{number:03d}.png")
    (root / "010.png").write_bytes(b"no picture")
    (root / "notes.txt").write_text("no picture either")
    return root


def test_a_row_for_every_file_in_order(service, folder, tmp_path):
    paths = inputs.list_files(folder)
    counts = batch.score(service, paths, tmp_path / "preds.parquet", {"point": "youden"}, "m")
    table = pd.read_parquet(tmp_path / "preds.parquet")
    assert list(table) == ["path", *columns(CLASSES, "pneumonia"), *MEASURED, "time"]
    assert list(table["path"]) == paths == sorted(paths) and len(paths) == 72
    assert counts == table["status"].value_counts().to_dict() and counts["error"] == 1
    assert table.loc[10, "reasons"].startswith("neither an image nor")
    alone = service.answer([(folder / "003.png").read_bytes()], point="youden").iloc[0]
    assert table.loc[3, "probability_normal"] == pytest.approx(alone["probability_normal"], abs=1e-6)
    assert set(table["operating_point"]) == {"youden"} and set(table["model_version"]) == {"3"}
    assert not (tmp_path / "preds.parquet.shards").exists()


def test_a_row_has_what_is_needed_to_watch_the_model(service, folder, tmp_path):
    """Distance, brightness and size are those of the image as it was answered; an unreadable file has none."""
    paths, output = inputs.list_files(folder), tmp_path / "preds.parquet"
    before = datetime.now(UTC)
    batch.score(service, paths, output, {}, "m")
    table = pd.read_parquet(output)
    assert table.loc[10, list(MEASURED)].isna().all() and table.drop(index=10)[list(MEASURED)].notna().all(axis=None)
    far = table["reasons"].str.contains("unlike the training images")
    assert (far == (table["distance"] > service.detector.far)).all()
    assert (table.drop(index=10)[["width", "height"]] == 80).all(axis=None)
    rasters = [service.reader.raster((folder / f"{number:03d}.png").read_bytes()) for number in (3, 40)]
    assert table.loc[[3, 40], "brightness"].tolist() == [raster.mean() for raster in rasters]
    assert str(table["time"].dtype) == "datetime64[us, UTC]"
    assert ((table["time"] >= before) & (table["time"] <= datetime.now(UTC))).all()


def test_shards_left_beside_a_complete_output_are_removed(service, folder, tmp_path, monkeypatch):
    paths, output = inputs.list_files(folder), tmp_path / "preds.parquet"

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            batch.score(service, paths, output, {}, "m")
    left = tmp_path / "preds.parquet.shards"
    assert output.exists() and [file.name for file in left.iterdir()] == ["plan.json"]
    Counting.asked = 0
    batch.score(service, paths, output, {}, "m")
    assert not left.exists() and Counting.asked == 0


def test_what_was_scored_before_a_kill_is_not_scored_again(service, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "SHARD_ROWS", 10)
    paths, output = inputs.list_files(folder), tmp_path / "preds.parquet"
    monkeypatch.setattr(Counting, "fail_after", 35)
    with pytest.raises(KeyboardInterrupt):
        batch.score(service, paths, output, {}, "m")
    assert not output.exists()
    done = len(list((tmp_path / "preds.parquet.shards").glob("shard-*.parquet")))
    assert done == 3
    monkeypatch.setattr(Counting, "fail_after", 10**9)
    Counting.asked = 0
    batch.score(service, paths, output, {}, "m")
    assert Counting.asked == 72 - 30
    whole = pd.read_parquet(output)
    assert list(whole["path"]) == paths
    Counting.asked = 0
    assert batch.score(service, paths, output, {}, "m") == whole["status"].value_counts().to_dict()
    assert Counting.asked == 0


def test_other_predictions_are_not_mixed(service, folder, tmp_path):
    paths, output = inputs.list_files(folder)[:5], tmp_path / "preds.parquet"
    batch.score(service, paths, output, {}, "models:/m/1")
    for other in (
        (paths[1:], {}, "models:/m/1"),
        (paths, {"point": "youden"}, "models:/m/1"),
        (paths, {}, "models:/m/2"),
    ):
        with pytest.raises(CxrError, match="already holds other results"):
            batch.score(service, other[0], output, *other[1:])
    parts = tmp_path / "new.parquet.shards"
    parts.mkdir()
    (parts / "plan.json").write_text("of another one")
    with pytest.raises(CxrError, match="holds shards of another prediction"):
        batch.score(service, paths, tmp_path / "new.parquet", {}, "models:/m/1")
    with pytest.raises(CxrError, match="ends in .parquet"):
        batch.score(service, paths, tmp_path / "new.csv", {}, "models:/m/1")


class _Named:
    """Answers each image with its own bytes, without a network."""

    classes, finding, limits = CLASSES, "pneumonia", SimpleNamespace(max_bytes=100, max_images=64)

    def answer(self, values, **_):
        cells = dict.fromkeys([*columns(CLASSES, "pneumonia"), *MEASURED]) | {"status": "ok"}
        return pd.DataFrame([cells | {"label": (value or b"").decode()} for value in values])


@pytest.fixture
def nightly(tmp_path, monkeypatch):
    """Predicts three files of constant names, two a shard; the labels in the output are their content."""
    monkeypatch.setattr(batch, "SHARD_ROWS", 2)
    paths, output = [str(tmp_path / f"{number}.png") for number in range(3)], tmp_path / "preds.parquet"
    for path in paths:
        Path(path).write_text("monday")

    def predict():
        batch.score(_Named(), paths, output, {}, "m")
        return list(pd.read_parquet(output)["label"])

    return SimpleNamespace(predict=predict, paths=paths, output=output)


@pytest.mark.parametrize("change", ["content", "size", "gone", "come"])
def test_files_that_have_changed_are_not_answered_with_the_results_of_earlier_ones(nightly, change):
    last = Path(nightly.paths[-1])
    if change == "come":
        last.unlink()
    assert nightly.predict() == nightly.predict() == ["monday", "monday", "" if change == "come" else "monday"]
    if change == "gone":
        last.unlink()
    else:
        last.write_text("tuesdays" if change == "size" else "sunday")
        os.utime(last, ns=(1, 1))  # later than before, or earlier as in a backup
    with pytest.raises(CxrError, match="already holds other results .*files that have changed since.; remove it, or"):
        nightly.predict()
    nightly.output.unlink()
    assert nightly.predict()[2] == {"gone": "", "size": "tuesdays"}.get(change, "sunday")


def test_unfinished_work_on_files_that_have_changed_is_not_continued(nightly, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(batch, "_join", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            nightly.predict()
    shards = batch.shard_folder(nightly.output)
    (shards / "shard-000001.parquet").unlink()
    Path(nightly.paths[0]).write_text("tuesday")
    with pytest.raises(CxrError, match="holds shards of another prediction .*; remove it, or give another output"):
        nightly.predict()
    shutil.rmtree(shards)
    assert nightly.predict() == ["tuesday", "monday", "monday"]


def test_what_stands_for_a_list_stands_for_its_content_too(nightly):
    """Images of a DICOMweb server have identifiers, which are no paths, and never change."""
    transfer = batch.Transfer(read=lambda path, _: (path.encode(), ""), listed="a server and a query")
    batch.score(_Named(), ["1.2.3"], nightly.output, {}, "m", transfer)
    assert batch.score(_Named(), [], nightly.output, {}, "m", transfer) == {"ok": 1}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_files(service, tmp_path, caplog):
    """The same few files many times over: 10,000 rows may not take more than 2,000."""
    caplog.set_level(logging.INFO)  # else pytest keeps what Pillow says of each file
    rng, files = np.random.default_rng(0), []
    for number in range(20):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(png(rng.integers(0, 256, (64, 64), dtype=np.uint8)))
    peaks = []
    for rows in (2_000, 10_000):
        paths = [str(files[i % 20]) for i in range(rows)]
        batch.score(service, paths, tmp_path / f"{rows}.parquet", {}, "m")
        peaks.append(psutil.Process().memory_info().rss)
        assert len(pd.read_parquet(tmp_path / f"{rows}.parquet", columns=["status"])) == rows
    assert peaks[1] - peaks[0] < 30e6, json.dumps(peaks)
