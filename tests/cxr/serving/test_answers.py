"""The log of answers: whole files, private, bounded loss, and never in the way of a request."""

import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from pyarrow import parquet

from cxr.serving import answers
from cxr.serving.answers import AnswerLog
from cxr.serving.service import MEASURED, Service, column_types, columns
from tests.helpers import wait_for

ROOT = Path(__file__).resolve().parents[3]
CLASSES = ("normal", "bacteria", "virus")
COLUMNS = column_types(CLASSES, "pneumonia")


def table(count: int = 2, failed: bool = False) -> pd.DataFrame:
    """Answers as the service makes them."""
    row = dict.fromkeys(columns(CLASSES, "pneumonia"))
    row |= {name: 0.25 for name in row if name.startswith("probability_")}
    row |= {"label": "virus", "status": "ok", "reasons": "", "operating_point": "argmax", "model_version": "3"}
    row |= {"heatmap": "iVBORw0KGgo=", "distance": 1.5, "brightness": 120.5, "width": 640, "height": 480}
    rows = [dict(row) for _ in range(count)]
    if failed:
        rows[0] |= {"label": None, "status": "error", **dict.fromkeys(MEASURED)}
        rows[0] |= {name: None for name in row if name.startswith("probability_")}
    return pd.DataFrame(rows)


@pytest.fixture
def log(tmp_path):
    made = AnswerLog(tmp_path / "answers", COLUMNS, every_s=0.05, seldom_s=0)
    yield made
    made.close()


def files(folder: Path) -> list[Path]:
    return sorted((folder / "answers").rglob("*.parquet"))


def read(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(file) for file in files(folder)], ignore_index=True)


def test_a_row_for_every_image_without_picture_or_heatmap(log, tmp_path):
    before = datetime.now(UTC)
    log.add(table(2, failed=True), "request-1")
    log.close()
    found = read(tmp_path)
    wanted = [name for name in columns(CLASSES, "pneumonia") if name != "heatmap"]
    assert list(found) == ["request_id", "row", *wanted, *MEASURED, "time"]
    assert list(found["request_id"]) == ["request-1"] * 2 and list(found["row"]) == [0, 1]
    assert found.loc[1, ["distance", "brightness", "width", "height"]].tolist() == [1.5, 120.5, 640, 480]
    assert found.loc[0, list(MEASURED)].isna().all() and found.loc[0, "status"] == "error"
    assert ((found["time"] >= before) & (found["time"] <= datetime.now(UTC))).all()
    assert b"iVBORw0KGgo" not in files(tmp_path)[0].read_bytes()


def test_only_the_user_of_the_service_can_read_it(log, tmp_path):
    before = os.umask(0)
    try:
        log.add(table(), "r")
        log.close()
    finally:
        os.umask(before)
    folder = tmp_path / "answers"
    modes = {stat.S_IMODE(place.stat().st_mode) for place in (folder, *folder.iterdir())}
    assert modes == {0o700} and {stat.S_IMODE(file.stat().st_mode) for file in files(tmp_path)} == {0o600}


def test_rows_are_written_without_being_asked(log, tmp_path):
    log.add(table(), "r")
    end = time.monotonic() + 20
    while not files(tmp_path) and time.monotonic() < end:
        time.sleep(0.02)
    assert len(read(tmp_path)) == 2


def test_few_answers_wait_for_more_and_many_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "FEW_ROWS", 6)
    log = AnswerLog(tmp_path / "answers", COLUMNS, every_s=0.02, seldom_s=3600)
    log.add(table(), "a")
    log.add(table(), "b")
    time.sleep(0.5)
    assert files(tmp_path) == []
    log.add(table(), "c")
    wait_for(lambda: files(tmp_path), 20)
    log.add(table(), "d")
    log.close()
    assert len(files(tmp_path)) == 2 and list(read(tmp_path)["request_id"]) == list("aabbccdd")


def test_the_name_of_a_file_says_from_when_its_answers_are(log, tmp_path):
    log.add(table(0), "none")
    log.add(table(), "r")
    log.close()
    [file] = files(tmp_path)
    begin, end = answers.span(file)
    times = read(tmp_path)["time"]
    assert begin <= times.min() <= times.max() <= end and (end - begin).total_seconds() <= 1
    late = datetime(2026, 11, 28, 23, 59, 58, 900, tzinfo=UTC)
    name = answers.file_name(late, late + timedelta(seconds=3.5), "3f2a91c0", 7)
    assert name == "2026-11-28/235958-4s-3f2a91c0-000007.parquet"
    assert answers.span(Path("log", name))[1] == datetime(2026, 11, 29, 0, 0, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    ["2026-11-28/081500-3f2a91c0-000001.parquet", "2026-13-28/081500-4s-3f2a91c0-000001.parquet", "preds.parquet",
     f"2026-11-28/081500-{'9' * 20}s-3f2a91c0-000001.parquet"],
)  # fmt: skip
def test_other_names_say_nothing_of_the_time(name):
    assert answers.span(Path("log", name)) is None


def test_many_threads_lose_nothing(log, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.add(table(3), f"r{number}"), range(100)))
    log.close()
    assert len(read(tmp_path)) == 300 and read(tmp_path).groupby("request_id").size().eq(3).all()


def test_a_full_disk_is_told_now_and_then_and_no_request_knows(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    lost: list[int] = []
    log = AnswerLog(tmp_path / "answers", COLUMNS, lost.append, every_s=60)
    monkeypatch.setattr(parquet, "write_table", full)
    with caplog.at_level(logging.ERROR, "cxr.serving"):
        for number in range(5):
            log.add(table(), f"r{number}")
            log.write()
        assert len(caplog.records) == 1 and "2 answers are left out" in caplog.text
        monkeypatch.setattr(answers, "AGAIN_S", 0.0)  # as later
        log.add(table(), "r5")
        log.write()
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2 and lost == [2] * 6
    assert "No space left on device" in caplog.text and files(tmp_path) == []
    assert "10 answers are left out" in caplog.records[1].getMessage()  # those of four files before, and of this one
    monkeypatch.undo()
    log.add(table(), "later")  # the disk has room again
    log.close()
    assert list(read(tmp_path)["request_id"]) == ["later"] * 2
    assert not list((tmp_path / "answers").rglob(".*"))


def test_a_folder_that_cannot_be_made_is_told_and_no_request_knows(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.ERROR, "cxr.serving"):
        log = AnswerLog(tmp_path / "file/answers", COLUMNS, every_s=60)
        log.add(table(), "r")
        log.close()
    assert "CXR_ANSWERS: 2 answers are left out" in caplog.text


def test_adding_waits_for_no_disk_and_memory_is_bounded(log, monkeypatch, caplog):
    """A disk that stands still: requests go on, and rows beyond the limit are left out."""
    stands, goes_on = threading.Event(), threading.Event()

    def stall(*_):
        stands.set()
        assert goes_on.wait(60)

    monkeypatch.setattr(answers, "MOST_ROWS", 50)
    monkeypatch.setattr(parquet, "write_table", stall)
    log.add(table(), "first")
    assert stands.wait(60)
    with caplog.at_level(logging.ERROR, "cxr.serving"):
        for number in range(100):
            log.add(table(), f"r{number}")
    assert not goes_on.is_set() and sum(map(len, log._waiting)) == 50
    goes_on.set()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "more answers wait than can be written" in caplog.text


def test_what_is_wrong_with_a_table_is_not_the_fault_of_the_request(log, caplog):
    log.add(None, "r")
    assert "CXR_ANSWERS: 1 answers are left out" in caplog.text


KILLED = """
import sys, time
from pathlib import Path
from tests.cxr.serving.test_answers import COLUMNS, table
from cxr.serving.answers import AnswerLog
log = AnswerLog(Path(sys.argv[1]), COLUMNS, every_s=0.1, seldom_s=0)
for number in range(1000):
    log.add(table(), f"r{number}")
    print(number, flush=True)
    time.sleep(0.01)
"""


def test_a_kill_loses_no_more_than_the_last_moments(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "answers")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            # A slow machine may take a second for a file.
            if int(line) >= 150 and files(tmp_path) and len(read(tmp_path)) >= 100:
                break
        else:
            raise AssertionError("hardly anything was written in ten seconds")
        process.send_signal(signal.SIGKILL)
    found = read(tmp_path)
    numbers = sorted({int(name[1:]) for name in found["request_id"]})
    assert numbers == list(range(len(numbers))) and len(found) == 2 * len(numbers)  # whole requests, none left out
    assert len(numbers) >= 50  # of 151 or more


def test_without_the_variable_nothing_is_kept(served, monkeypatch, tmp_path):
    service = Service(served.folder, threads=1)
    monkeypatch.delenv(answers.VARIABLE, raising=False)
    assert answers.opened(service) is None
    monkeypatch.setenv(answers.VARIABLE, str(tmp_path / "answers"))
    log = answers.opened(service)
    picture = served.manifest.files()[0].read_bytes()
    log.add(service.answer([picture, b"none"], strict=False, measured=True), "r")
    log.close()
    found = read(tmp_path)
    assert list(found["status"] == "error") == [False, True] and found["distance"].notna().tolist() == [True, False]
