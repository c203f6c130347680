"""Of a log of answers, what was asked for is read, whatever its files look like; the rest is not even opened."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cxr.errors import CxrError
from cxr.monitoring import table
from cxr.serving.answers import file_name

REFERENCE = SimpleNamespace(classes=["normal", "pneumonia"], finding="pneumonia")
MIDNIGHT = datetime(2026, 11, 28, tzinfo=UTC)


def answers(*seconds: float, version: str = "3", **columns: object) -> pd.DataFrame:
    """Answers so many seconds after midnight."""
    count = len(seconds)
    values = {"request_id": [f"r{second:g}" for second in seconds], "row": np.zeros(count, np.int32)}
    values |= {"probability_normal": 0.25, "probability_pneumonia": 0.75, "distance": 1.5, "brightness": 120.0}
    values |= {"width": 640, "height": 480, "status": "ok", "reasons": None, "operating_point": "argmax"}
    times = [MIDNIGHT + timedelta(seconds=second) for second in seconds]
    return pd.DataFrame(values | {"model_version": version, "time": pd.Series(times)} | columns)


def keep(folder: Path, rows: pd.DataFrame, number: int = 1) -> Path:
    """Write a file as the log of a service names it."""
    file = folder / file_name(rows["time"].min(), rows["time"].max(), "3f2a91c0", number)
    file.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(file, index=False)
    return file


def at(second: float) -> pd.Timestamp:
    return pd.Timestamp(MIDNIGHT + timedelta(seconds=second))


def test_files_of_another_time_are_not_opened(tmp_path):
    before = keep(tmp_path, answers(-90, -60))
    keep(tmp_path, answers(-5, 5, 20))  # over midnight, in the folder of the day before
    keep(tmp_path, answers(40, 50))
    after = keep(tmp_path, answers(60, 70))
    for file in (before, after):
        file.write_bytes(b"this would be an error")
    found = table.read(tmp_path, REFERENCE, "3", at(0), at(60))
    assert found.rows["request_id"].tolist() == ["r5", "r20", "r40", "r50"]
    assert (found.files, found.outside, found.others) == (2, 1, {})
    with pytest.raises(CxrError, match="not a Parquet file that can be read"):
        table.read(tmp_path, REFERENCE, "3")


def test_every_answer_is_found_however_the_time_is_cut(tmp_path):
    rng, seconds = np.random.default_rng(0), np.arange(0, 600, 7.3)
    for number, part in enumerate(np.array_split(seconds, 12)):
        keep(tmp_path, answers(*part), number)
    for _ in range(20):
        since, until = sorted(rng.uniform(-10, 620, 2))
        wanted = [f"r{second:g}" for second in seconds if since <= second < until]
        if wanted:
            found = table.read(tmp_path, REFERENCE, "3", at(since), at(until))
            assert found.rows["request_id"].tolist() == wanted


def test_files_with_other_names_are_read_and_their_types_agree(tmp_path):
    keep(tmp_path, answers(1, 2))
    other = answers(3).drop(columns=["request_id", "row"]).assign(path="a.png", width=640.0, model_version=3)
    other["time"] = other["time"].dt.tz_convert("Europe/Berlin").astype("datetime64[ns, Europe/Berlin]")
    other.astype({"status": "category"}).to_parquet(tmp_path / "preds.parquet", index=False)
    failed = answers(0, 9, status="error", reasons="cut off", probability_normal=None, distance=None)
    keep(tmp_path, pd.concat([failed, answers(10, version="4")], ignore_index=True))
    found = table.read(tmp_path, REFERENCE, "3", since=at(1))
    rows = found.rows
    assert rows["status"].tolist() == ["ok"] * 3 + ["error"] and rows["reasons"].tolist() == ["", "", "", "cut off"]
    assert rows["row"].isna().tolist() == [False, False, True, False] and rows["path"].notna().sum() == 1
    assert rows["width"].dtype == rows["distance"].dtype == np.float64 and np.isnan(rows["distance"].iat[3])
    assert str(rows["time"].dtype) == "datetime64[us, UTC]" and "model_version" not in rows
    assert (found.files, found.outside, found.others) == (3, 1, {"4": 1})


def test_files_of_other_versions_may_have_other_columns(tmp_path):
    """Of a version of other classes, or one from before answers had distances, only the number is told."""
    three = answers(5, 6, version="2").drop(columns=["probability_pneumonia", "distance", "time"])
    keep(tmp_path, answers(0, 9))
    three.assign(probability_bacteria=0.5, probability_virus=0.25).to_parquet(tmp_path / "three.parquet")
    mixed = pd.concat([answers(1), answers(2, version="").assign(time=pd.NaT)], ignore_index=True)
    mixed["time"] = mixed["time"].astype("datetime64[us, UTC]")
    mixed.to_parquet(tmp_path / "mixed.parquet")
    keep(tmp_path, answers(4, version=None))
    found = table.read(tmp_path, REFERENCE, "3")
    assert found.rows["request_id"].tolist() == ["r0", "r1", "r9"]
    assert (found.files, found.others) == (4, {"2": 2, "unknown": 2})
    with pytest.raises(CxrError, match="three.parquet lacks the columns probability_pneumonia, distance, time: "):
        table.read(tmp_path, REFERENCE, "2")
    answers(1).drop(columns="model_version").to_parquet(tmp_path / "none.parquet")
    with pytest.raises(CxrError, match="none.parquet lacks the column model_version: "):
        table.read(tmp_path, REFERENCE, "3")


@pytest.fixture
def private(monkeypatch):
    """Function that takes away the right to read a folder, for root as well."""
    scan = os.scandir

    def forbid(folder: Path) -> None:
        def refuse(place: str | Path = ".") -> object:
            if Path(place) == folder:
                raise PermissionError(13, "Permission denied", str(place))
            return scan(place)

        monkeypatch.setattr(os, "scandir", refuse)

    return forbid


def test_days_that_may_not_be_read_are_not_left_out(tmp_path, private):
    keep(tmp_path, answers(0, 9))
    day = keep(tmp_path, answers(24 * 3600)).parent
    private(day)
    with pytest.raises(CxrError) as error:
        table.read(tmp_path, REFERENCE, "3")
    told = f"{day} may not be read; run as the user who wrote it: that of the service, or of predict"
    assert str(error.value) == told
    private(tmp_path)
    with pytest.raises(CxrError, match=f"{tmp_path} may not be read; run as the user who wrote it"):
        table.read(tmp_path, REFERENCE, "3")


@pytest.mark.parametrize("name", ["lost+found", ".snapshots", "_temporary", "preds.parquet.shards"])
def test_folders_without_finished_answers_are_not_even_looked_into(tmp_path, private, name):
    keep(tmp_path, answers(0, 9))
    keep(tmp_path / name, answers(5))
    private(tmp_path / name)
    assert table.read(tmp_path, REFERENCE, "3").rows["request_id"].tolist() == ["r0", "r9"]


@pytest.mark.parametrize("method", ["is_dir", "open"])
def test_an_input_that_may_not_be_read_is_told_as_such(tmp_path, monkeypatch, method):
    """In a folder that may not be entered, and a file of another user."""
    file = tmp_path / "preds.parquet"
    answers(0).to_parquet(file)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(*((Path, "is_dir") if method == "is_dir" else (table.parquet, "read_schema")), refuse)
    with pytest.raises(CxrError, match="preds.parquet may not be read; run as the user who wrote it"):
        table.read(file, REFERENCE, "3")


def test_a_time_without_files_is_told_with_the_time_there_is(tmp_path):
    keep(tmp_path, answers(0, 70))
    keep(tmp_path, answers(3600))
    with pytest.raises(CxrError) as error:
        table.read(tmp_path, REFERENCE, "3", since=at(7200))
    assert str(error.value) == (
        f"input={tmp_path}: none of its 2 files is of the time asked for; they are from 2026-11-28T00:00Z to "
        "2026-11-28T01:00Z"
    )
    keep(tmp_path, answers(9000, version="4"))
    with pytest.raises(CxrError, match="version 4 in its files of the time asked for, and none of version 3"):
        table.read(tmp_path, REFERENCE, "3", since=at(7200))
    with pytest.raises(
        CxrError, match=r"none of its 2 answers of version 3 is in the time .* from 2026-11-28T00:00Z to"
    ):
        table.read(tmp_path, REFERENCE, "3", since=at(30), until=at(40))
