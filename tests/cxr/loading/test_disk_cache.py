"""A cached array is whole or absent, recognised when damaged, built once, and never larger than its bound."""

import multiprocessing
import os
import threading
import time

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.loading.cached_array import ROWS, Plan
from cxr.loading.disk_cache import DiskCache

ROWS_OF = np.arange(60, dtype=np.float32).reshape(20, 3)


def plan(number: int = 0, rows: np.ndarray = ROWS_OF) -> Plan:
    return Plan("test", {"number": number}, rows.shape, rows.dtype, f"{len(rows)} rows")


def fill(write):
    write(10, ROWS_OF[10:])
    write(0, ROWS_OF[:10])


def refuse(write):
    raise AssertionError("it is there already")


@pytest.fixture
def cache(tmp_path) -> DiskCache:
    return DiskCache(tmp_path, 1.0)


def test_it_is_built_once_and_read_in_any_order(cache):
    cache.get(plan(), fill)
    found = cache.get(plan(), refuse)
    assert (found.take(np.array([3, 19, 0])) == ROWS_OF[[3, 19, 0]]).all()
    assert len(found) == 20


def test_another_key_is_another_array(cache):
    cache.get(plan(0), fill)
    with pytest.raises(AssertionError):
        cache.get(plan(1), refuse)
    assert plan(0).name != Plan("test", {"number": 0}, (20, 3), np.dtype(np.float64), "").name


@pytest.mark.parametrize("damage", ["flip", "cut", "facts"])
def test_a_damaged_array_is_built_again(cache, caplog, damage):
    cache.get(plan(), fill)
    file = cache.folder / plan().name / ROWS
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[17] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-4])
    else:
        (file.parent / "facts.json").write_text("{")
    assert (cache.get(plan(), fill).take(np.arange(20)) == ROWS_OF).all()
    assert "is damaged: built again" in caplog.text


def test_a_build_that_fails_leaves_nothing(cache):
    def half(write):
        write(0, ROWS_OF[:10])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get(plan(), half)
    assert not [f for f in cache.folder.rglob("*") if f.is_dir()]
    cache.get(plan(), fill)


def test_what_a_killed_process_left_is_swept(cache):
    left = cache.folder / f".{plan().name}-abc"
    left.mkdir(parents=True)
    cache.get(plan(), fill)
    assert not left.exists()


def test_a_full_disk_is_one_line(cache):
    def full(write):
        raise OSError(28, "No space left on device")

    with pytest.raises(CxrError, match=r"No space left on device; free space, or set cache\.dir or cache\.max_gb"):
        cache.get(plan(), full)


def test_a_folder_that_cannot_be_written_is_read_from_or_named(cache, monkeypatch):
    cache.get(plan(), fill)

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cxr.loading.disk_cache.FileLock", refused)
    monkeypatch.setattr("cxr.loading.disk_cache.os.utime", refused)
    assert np.array_equal(cache.get(plan(), refuse).take(np.arange(20)), ROWS_OF)
    with pytest.raises(CxrError, match="Permission denied; free space, or set cache.dir"):
        cache.get(plan(1), refuse)


def test_rows_that_do_not_fit_are_an_error_of_the_program(cache):
    with pytest.raises(ValueError, match="do not fit"):
        cache.get(plan(), lambda write: write(15, ROWS_OF))
    with pytest.raises(ValueError, match="do not fit"):
        cache.get(plan(), lambda write: write(0, ROWS_OF.astype(np.float64)))


def test_an_array_beyond_the_bound_is_not_built(tmp_path, caplog):
    assert DiskCache(tmp_path, 1e-7).get(plan(), refuse) is None
    assert "cache.max_gb allows" in caplog.text


def test_the_least_recently_used_goes_first(tmp_path):
    cache = DiskCache(tmp_path, 3 * ROWS_OF.nbytes / 1e9)
    for number in range(3):
        cache.get(plan(number), fill)
        os.utime(cache.folder / plan(number).name / "facts.json", (1000 + number, 1000 + number))
    first = cache.get(plan(0), refuse)  # used: 1 is the oldest now
    cache.get(plan(3), fill)
    assert {folder.name for folder, _, _ in cache.listed()} == {plan(n).name for n in (0, 2, 3)}
    assert (first.take(np.arange(20)) == ROWS_OF).all()


def _count_in(folder, counted):
    def counting(write):
        with counted.get_lock():
            counted.value += 1
        time.sleep(0.3)
        fill(write)

    found = DiskCache(folder, 1.0).get(plan(), counting)
    os._exit(0 if (found.take(np.arange(20)) == ROWS_OF).all() else 1)


def test_two_processes_at_once_build_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    counted = context.Value("i", 0)
    started = [context.Process(target=_count_in, args=(tmp_path, counted)) for _ in range(3)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert counted.value == 1


def test_reading_from_threads(cache):
    found = cache.get(plan(), fill)
    wrong = []

    def read(seed):
        index = np.random.default_rng(seed).integers(0, 20, 50)
        for _ in range(200):
            if not (found.take(index) == ROWS_OF[index]).all():
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_clearing_says_what_it_freed(cache):
    cache.get(plan(), fill)
    assert ROWS_OF.nbytes <= cache.clear() < ROWS_OF.nbytes + 1000
    assert not cache.folder.exists()


def test_clearing_leaves_an_array_that_is_being_built(cache):
    cache.get(plan(1), fill)

    def slow(write):
        fill(write)
        DiskCache(cache.folder, 1.0).clear()  # as by another process
        assert not (cache.folder / plan(1).name).exists()

    found = cache.get(plan(0), slow)
    assert (found.take(np.arange(20)) == ROWS_OF).all()
    assert cache.get(plan(0), refuse) is not None
    cache.clear()
    assert not cache.folder.exists()


def test_clearing_leaves_what_is_not_its_own(tmp_path):
    cache = DiskCache(tmp_path, 1.0)
    cache.get(plan(), fill)
    (tmp_path / f".{plan(1).name}-abc").mkdir()  # left by a killed build
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/facts.json").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine as well")
    assert cache.clear() >= ROWS_OF.nbytes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "thesis"]
    assert (tmp_path / "thesis/facts.json").read_text() == "mine"


def test_a_damaged_array_is_built_again_when_the_cache_is_full(tmp_path):
    cache = DiskCache(tmp_path, 1.5 * ROWS_OF.nbytes / 1e9)
    cache.get(plan(), fill)
    file = tmp_path / plan().name / ROWS
    file.write_bytes(bytes(ROWS_OF.nbytes))
    built = []
    thread = threading.Thread(target=lambda: built.append(cache.get(plan(), fill)), daemon=True)
    thread.start()
    thread.join(20)
    assert built, "it waits for a lock of its own"
    assert (built[0].take(np.arange(20)) == ROWS_OF).all()
