"""The scratch folder of a step: never left behind for good, never removed while it is in use."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cxr.errors import CxrError
from steps.runtime import scratch
from tests.steps.conftest import ROOT

HOLD = """
import sys
from steps.runtime import scratch
with scratch.folder("train") as folder:
    (folder / "half.pt").write_bytes(b"half")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """A folder for temporary files of the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def holder(temporary):
    """A process with a scratch folder, and the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_scratch_folder_is_removed_at_its_end(temporary):
    with scratch.folder("train") as folder:
        (folder / "file").write_text("")
        assert folder.parent == temporary
    assert not list(temporary.iterdir())


def test_the_folder_of_a_killed_step_is_removed(holder, temporary):
    process, folder = holder
    process.kill()
    process.wait()
    assert (folder / "half.pt").exists()
    assert scratch.remove_abandoned() == [folder]
    assert not list(temporary.iterdir())


def test_a_folder_in_use_is_left_alone(holder):
    _, folder = holder
    assert scratch.remove_abandoned() == []
    assert (folder / "half.pt").exists()


def test_foreign_files_and_folders_of_other_users_are_left_alone(temporary, monkeypatch):
    mine, foreign = temporary / f"{scratch.PREFIX}train-1", temporary / "cxr-other"
    mine.mkdir()
    foreign.mkdir()
    (temporary / f"{scratch.PREFIX}link").symlink_to(foreign)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: mine.stat().st_uid + 1)
        assert scratch.remove_abandoned() == []
    assert scratch.remove_abandoned() == [mine]
    assert foreign.is_dir()


def test_a_folder_that_another_step_removes_before_it_is_locked_is_made_again(temporary, monkeypatch):
    flock, rivals = scratch.fcntl.flock, [True]

    def late(lock, how):
        if rivals:
            rivals.pop()
            assert len(scratch.remove_abandoned()) == 1  # as if another step started just now
        flock(lock, how)

    monkeypatch.setattr(scratch.fcntl, "flock", late)
    with scratch.folder("train") as folder:
        assert folder.is_dir()
        assert scratch.remove_abandoned() == []


def test_a_tmpdir_that_cannot_be_written_is_not_replaced_by_another(temporary, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(temporary / "none"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(CxrError, match=r"none.*set TMPDIR to"), scratch.folder("train"):
        pass
