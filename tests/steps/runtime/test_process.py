"""Processes are known again, and asked to end: a known one, or all steps that this one has launched."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from steps.runtime import process
from tests.steps.conftest import ROOT


@pytest.fixture
def sleeping():
    work = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield work
    work.kill()
    work.wait()


def identity_of(pid: int) -> str:
    """As earlier versions have stored it, and systems other than Linux do."""
    host = process.identity().rsplit(":", 2)[0]
    return f"{host}:{pid}:{psutil.Process(pid).create_time():.2f}"


def test_a_known_process_is_asked_to_end(sleeping):
    process.stop(identity_of(sleeping.pid))
    assert sleeping.wait(30) < 0


def test_a_process_of_another_host_or_time_is_left_alone(sleeping):
    host, pid, started = identity_of(sleeping.pid).rsplit(":", 2)
    process.stop(f"elsewhere:{pid}:{started}")
    process.stop(f"{host}:{pid}:{float(started) - 100:.2f}")
    time.sleep(0.2)
    assert sleeping.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know a start by the clock alone")
def test_a_clock_that_is_set_ends_no_process(monkeypatch):
    identity, real = process.identity(), psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: real(self) + 3600)
    assert process.alive(identity)
    start, ticks = identity.rsplit("/", 1)
    assert not process.alive(f"{start}/{int(ticks) - 1}")  # an earlier process with the same pid
    host, pid, _ = identity.rsplit(":", 2)
    assert not process.alive(f"{host}:{pid}:another-boot/{ticks}")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_start_is_found_whatever_the_name_of_the_process():
    code = "open('/proc/self/comm', 'w').write('a) b (c'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as named:
        named.stdout.readline()
        assert psutil.Process(named.pid).name() == "a) b (c"
        ticks = int(process._start(named.pid).rsplit("/", 1)[1])
        began = psutil.boot_time() + ticks / os.sysconf("SC_CLK_TCK")
        assert began == pytest.approx(psutil.Process(named.pid).create_time(), abs=2)
        named.stdin.close()


def test_a_start_by_the_clock_is_read_as_well(sleeping, monkeypatch, tmp_path):
    by_clock = identity_of(sleeping.pid)
    assert process.alive(by_clock)
    monkeypatch.setattr(process, "_BOOT_ID", tmp_path / "none")  # as on other systems
    assert "/" not in process.identity() and process.alive(process.identity())
    sleeping.kill()
    sleeping.wait()
    assert not process.alive(by_clock)


def test_launched_steps_are_asked_to_end_also_below_a_shell():
    code = """
import subprocess, sys, time
from steps.runtime import process
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
direct = subprocess.Popen(sleep)
shell = subprocess.Popen(["bash", "-c", f"{sys.executable} -c 'import time; time.sleep(60)'; exit 7"])
time.sleep(1)
process.stop_children()
print(direct.wait(30) < 0, shell.wait(30))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=90, check=True
    )
    assert done.stdout.split() == ["True", "7"]
