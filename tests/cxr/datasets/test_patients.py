"""Pseudonyms of patients need a key that each user has alone, and are the same in every run."""

import os
import subprocess
import sys

import pytest

from cxr.datasets.patients import key_file, pseudonym
from cxr.errors import CxrError
from tests.helpers import ROOT

PRINT = """
import sys, time
from pathlib import Path
from cxr.datasets.patients import pseudonym
Path(f"ready-{sys.argv[1]}").touch()
while not Path("go").exists():
    time.sleep(0.001)
print(pseudonym("Doe-17"))
"""


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    """A configuration folder without a key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_a_user_has_one_key_that_others_cannot_read(config):
    first = pseudonym("Doe-17")
    assert key_file().is_relative_to(config)
    assert key_file().stat().st_mode & 0o777 == 0o600
    assert key_file().parent.stat().st_mode & 0o777 == 0o700
    assert pseudonym("Doe-17") == first != pseudonym("Doe-18")
    assert first.startswith("dicom/") and "Doe" not in first


def test_another_key_gives_other_pseudonyms(tmp_path, monkeypatch):
    first = pseudonym("Doe-17")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of another user"))
    assert pseudonym("Doe-17") != first


def test_processes_that_make_the_key_at_once_agree(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT, str(number)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
        )
        for number in range(4)
    ]
    while len(list(tmp_path.glob("ready-*"))) < len(started):
        assert all(process.poll() is None for process in started)
    (tmp_path / "go").touch()
    printed = {process.communicate(timeout=60)[0].decode().strip() for process in started}
    assert printed == {pseudonym("Doe-17")}


@pytest.mark.parametrize("content", [b"", b"0" * 63, b"rubbish", b"\xff" * 64])
def test_a_damaged_key_is_refused_and_kept(content):
    key_file().parent.mkdir(parents=True)
    key_file().write_bytes(content)
    with pytest.raises(CxrError, match=r"patients\.key is damaged, expected 64 hexadecimal digits; restore it"):
        pseudonym("Doe-17")
    assert key_file().read_bytes() == content


def test_a_key_that_cannot_be_read_or_made_is_refused(config):
    config.write_text("a file")  # file modes do not stop root
    with pytest.raises(CxrError, match=r"patients\.key cannot be read .*XDG_CONFIG_HOME"):
        pseudonym("Doe-17")
    config.unlink()
    key_file().mkdir(parents=True)
    with pytest.raises(CxrError, match=r"patients\.key cannot be read .Is a directory."):
        pseudonym("Doe-17")
