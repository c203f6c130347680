"""The short form of `bench.soak`: promises that need no quiet machine are kept at full load and across restarts."""

import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_a_minute_of_soak():
    command = [sys.executable, "-m", "bench.soak", "--seconds", "24"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in ("one picture", "several pictures", "bad", "huge", "slow"):
        assert f"statuses: {kind}" in done.stdout
    assert "at a restart" in done.stdout and "BROKEN" not in done.stdout
