"""Processes are asked to end: a known one, or all steps that this one has launched."""

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
