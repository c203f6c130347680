"""DICOM files that crash, hang or swell their decoder cost themselves, and nothing else."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from cxr.errors import BusyError, CxrError, ImageError
from cxr.imaging import decode, dicom_pool, dicom_worker
from cxr.imaging.dicom_pool import Pool
from cxr.imaging.preprocess import InputSpec
from cxr.imaging.reader import ImageReader
from tests.cxr.imaging.test_dicom import NOISE, RAMP, file_of
from tests.helpers import lives, wait_for

# The decoder of a worker whose file says in its patient ID how to misbehave.
MISBEHAVING = """
import ctypes, os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from cxr.imaging import dicom, dicom_worker

def radiograph(dataset, plain=dicom.radiograph):
    match str(dataset.PatientID):
        case "spins":
            while True: pass
        case "sleeps": time.sleep(3600)
        case "never ends":
            signal.setitimer(signal.ITIMER_REAL, 0)
            time.sleep(3600)
        case "crashes": ctypes.string_at(0)
        case "swells": bytearray(2 << 30)
        case "prints": os.write(1, b"warning of a C library")
        case "kills its parent": os.kill(os.getppid(), signal.SIGKILL)
    return plain(dataset)

dicom.radiograph = radiograph
dicom_worker.serve()
"""
GOOD, PIXELS = file_of(NOISE), 10_000
SPIN_S = dicom_worker.seconds(NOISE.size, len(GOOD))


def misbehaving(how: str) -> bytes:
    return file_of(NOISE, PatientID=how)


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.setattr(dicom_pool, "_START", MISBEHAVING)
    pool = Pool(2)
    yield pool
    pool.close()
    pool._turns.shutdown(wait=False, cancel_futures=True)


def refusal(pool: Pool, data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        pool.read(data, PIXELS)
    return str(caught.value)


def test_pixels_arrive_as_they_were_decoded():
    for pixels in (NOISE, RAMP):
        assert decode.decode_grey(file_of(pixels)).flags.writeable
        assert (decode.decode_grey(file_of(pixels)) == decode.decode_grey(file_of(pixels))).all()


@pytest.mark.slow
def test_a_file_that_crashes_or_swells_its_decoder_costs_itself(pool):
    expected = pool.read(GOOD, PIXELS).grey
    process = pool._idle[0].pid
    assert refusal(pool, misbehaving("crashes")) == "the DICOM file is damaged (its decoder crashed)"
    assert refusal(pool, misbehaving("swells")).endswith("takes too much memory)")
    assert (pool.read(misbehaving("prints"), PIXELS).grey == expected).all()
    assert (pool.read(GOOD, PIXELS).grey == expected).all()
    assert [idle.pid for idle in pool._idle] == [process]


@pytest.mark.slow
def test_good_files_wait_for_hanging_ones_no_longer_than_stated(pool):
    """Turns are taken in order: eight files that hang go through two processes within four times what one may take."""
    pool.read(GOOD, PIXELS)
    start = time.monotonic()
    with ThreadPoolExecutor(16) as callers:
        hanging = [callers.submit(refusal, pool, misbehaving("spins")) for _ in range(8)]
        good = [callers.submit(pool.read, GOOD, PIXELS) for _ in range(8)]
        shapes = [answer.result().grey.shape for answer in good]
        waited = time.monotonic() - start
        refusals = {answer.result() for answer in hanging}
    assert shapes == [NOISE.shape] * 8
    assert refusals == {"the DICOM file is damaged (its decoder ran for too long)"}
    assert waited < 4 * dicom_worker.ELAPSED * SPIN_S + 3  # and a second process has to start
    assert len(pool._idle) == 2


@pytest.mark.slow
def test_a_decoder_that_waits_for_nothing_is_ended(pool):
    pool.read(GOOD, PIXELS)  # its process starts before the time runs
    start = time.monotonic()
    assert "ran for too long" in refusal(pool, misbehaving("sleeps"))
    assert time.monotonic() - start < dicom_worker.ELAPSED * SPIN_S + 3


@pytest.mark.slow
def test_a_decoder_that_computes_without_end_gets_its_processor_time_and_no_more(pool):
    pool.read(GOOD, PIXELS)
    process = psutil.Process(pool._idle[0].pid)
    before = process.cpu_times()
    assert "ran for too long" in refusal(pool, misbehaving("spins"))
    after = process.cpu_times()
    used = sum(getattr(after, kind) - getattr(before, kind) for kind in ("children_user", "children_system"))
    assert 0.5 * SPIN_S < used < 1.5 * SPIN_S


@pytest.mark.slow
def test_who_waits_too_long_for_a_turn_is_told_to_come_back(pool):
    pool.read(GOOD, PIXELS)
    with ThreadPoolExecutor(4) as callers:
        hanging = [callers.submit(refusal, pool, misbehaving("sleeps")) for _ in range(2)]
        wait_for(lambda: not pool._idle, 20)
        time.sleep(0.1)
        start = time.monotonic()
        with pytest.raises(BusyError, match="other DICOM files are being decoded, for more than 0.3 s; send it again"):
            pool.read(GOOD, PIXELS, 0.3)
        assert time.monotonic() - start < 1
        assert all("too long" in answer.result() for answer in hanging)
    assert pool.read(GOOD, PIXELS).grey.shape == NOISE.shape


def test_a_reader_waits_as_long_as_it_takes_unless_it_is_told_how_long(monkeypatch):
    pool, go_on = Pool(1), threading.Event()
    monkeypatch.setattr(decode, "POOL", pool)
    pool._turns.submit(go_on.wait, 60)  # a file that takes long
    with ThreadPoolExecutor(1) as caller:
        patient = caller.submit(ImageReader(InputSpec(size=32, resize=32)).read, GOOD)
        try:
            with pytest.raises(BusyError, match="more than 0.1 s"):
                ImageReader(InputSpec(size=32, resize=32), patience=0.1).raster(GOOD)
            assert not patient.done()
        finally:
            go_on.set()
        assert patient.result(60).raster.shape == (32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["never ends", "kills its parent"])
def test_a_process_ended_from_outside_is_replaced_and_blames_no_file(pool, monkeypatch, how):
    pool.read(GOOD, PIXELS)
    forks: set[int] = set()
    pid = pool._idle[0].pid
    watcher = threading.Thread(target=lambda: forks.update(_children_for(1.0, pid)))
    watcher.start()
    with monkeypatch.context() as shorter:
        shorter.setattr(dicom_worker, "ELAPSED", 1)
        shorter.setattr(dicom_pool, "_MARGIN_S", 0)
        with pytest.raises(BusyError, match="was killed; send the file again"):
            pool.read(misbehaving(how), PIXELS)
    watcher.join()
    assert forks or how != "never ends"
    wait_for(lambda: not any(lives(fork) for fork in forks))
    assert pool.read(GOOD, PIXELS).grey.shape == NOISE.shape


@pytest.mark.slow
@pytest.mark.parametrize("how", ["", "never ends"])
def test_no_process_outlives_its_parent(tmp_path, how):
    """Not even one that is in the middle of a file."""
    (tmp_path / "file.dcm").write_bytes(misbehaving(how))
    program = (
        "import sys, pathlib; from cxr.imaging import dicom_pool; dicom_pool._START = sys.argv[1]\n"
        "data = pathlib.Path(sys.argv[2]).read_bytes(); dicom_pool.POOL.read(data, 10_000)\n"
        "print(flush=True); sys.stdin.read()"
    )
    root = Path(dicom_pool.__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", program, MISBEHAVING, str(tmp_path / "file.dcm")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root,
    )  # fmt: skip
    if how:
        wait_for(lambda: len(_offspring(parent.pid)) == 2)
    else:
        parent.stdout.readline()
    children = _offspring(parent.pid)
    assert len(children) == (2 if how else 1)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not any(lives(child.pid) for child in children))


def test_an_error_of_the_system_at_the_start_is_one_line(monkeypatch):
    def fail(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(CxrError, match="no process to decode DICOM files can be started .Resource temporarily"):
        Pool(1).read(GOOD, PIXELS)


def _offspring(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _children_for(seconds: float, pid: int) -> set[int]:
    """Every child that a process has within that time."""
    seen: set[int] = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen |= {child.pid for child in _offspring(pid)}
        time.sleep(0.005)
    return seen
