"""Forks of `preloaded` behave as new processes: what they are given, what they return, signals and kills."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.helpers import lives, wait_for
from tests.steps import preloaded
from tests.steps.conftest import ROOT

PROBE = ("-m", "tests.steps.preloaded_probe")


@pytest.fixture(scope="module")
def quick():
    """The programs of a server that imports next to nothing."""
    with tempfile.TemporaryDirectory() as folder, preloaded.running(Path(folder), imported=("json",)) as programs:
        yield programs


@pytest.fixture
def started(quick, tmp_path):
    """Function that starts a program with these words in `tmp_path`, as `mlflow run` does, and gives it a line."""

    def start(*words: str) -> subprocess.Popen:
        environment = preloaded.first_on_path(quick, {**os.environ, "GIVEN": "caf\udce9"})
        process = subprocess.Popen(
            ["bash", "-c", 'exec python "$@"', "bash", *words], cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="surrogateescape",
        )  # fmt: skip
        process.stdin.write("a line\n")
        process.stdin.flush()
        return process

    return start


def test_arguments_environment_folder_streams_and_status_are_its_own(started, tmp_path):
    for number in range(2):
        process = started(*PROBE, "two words", str(number))
        out, err = process.communicate(timeout=60)
        assert out.split(" ", 1)[1] == f"{tmp_path} caf\udce9 two words {number} a line\n"
        assert (process.returncode, err) == (7, "1 True\n")


def test_a_step_ends_as_in_a_new_process(started):
    for words in (("-m", "steps.main", "--help"), ("-m", "steps.main", "--speed", "9")):
        forked = started(*words)
        out, err = forked.communicate(timeout=60)
        new = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (forked.returncode, out, err) == (new.returncode, new.stdout, new.stderr)


def test_what_is_no_step_is_a_new_process(started):
    out, _ = started("-c", "import sys; print(sys.executable, sys.orig_argv[1:2])").communicate(timeout=60)
    assert out == f"{sys.executable} ['-c']\n"


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_ends_by_the_signals_of_who_has_asked_for_it(started, which):
    process = started(*PROBE, "wait")
    fork = psutil.Process(int(process.stdout.readline().split()[0]))
    process.send_signal(which)
    wait_for(lambda: not lives(fork.pid), 30)
    process.communicate(timeout=30)
    # As a shell tells it; who is killed tells nothing. Python turns SIGINT into an exception, which ends it the same.
    assert process.returncode == (-which if which == signal.SIGKILL else 128 + which)


def test_a_server_that_has_died_fails_who_asks_and_the_suite(tmp_path):
    dying = preloaded.running(tmp_path, ("nowhere.at",))
    programs = dying.__enter__()
    done = subprocess.run([str(programs / "python"), *PROBE], capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
    with pytest.raises(AssertionError, match="No module named 'nowhere'"):
        dying.__exit__(None, None, None)
