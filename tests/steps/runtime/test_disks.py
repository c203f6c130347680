"""Full and read-only disks: told in one line, and told from other errors."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from steps.runtime import disks

PLACES = [disks.temporary(), disks.log_dir(Path("/data/logs")), disks.Place("folder", Path("/data"), "make room")]


def wrapped(error: Exception, by: Exception) -> Exception:
    try:
        raise by from error
    except Exception as raised:
        return raised


def full(path: str | None = None) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@pytest.mark.parametrize(
    "error, words",
    [
        (full("/data/logs/x.log"), "log_dir /data/logs cannot be written (No space left on device); make room"),
        (full("/data/other"), "folder /data cannot be written"),
        (full("/elsewhere/file"), "file /elsewhere/file cannot be written"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: '/a' -> '/data/b'")]), "folder /data cannot be"),
        (full(), f"the folder for temporary files {disks.temporary().folder} cannot be written"),
        (OSError(errno.EROFS, "x", "/data/a"), "folder /data cannot be written (Read-only file system)"),
        (wrapped(full("/data/a"), RuntimeError("pytorch")), "folder /data cannot be written"),
        (MlflowException(f"1 download failed: {full('/data/a')!s}"), "folder /data cannot be written (No space left"),
        (
            MlflowException("(sqlite3.OperationalError) database or disk is full\n[SQL: x]"),
            "store sqlite:///x.db ",
        ),
        (
            MlflowException("(sqlite3.OperationalError) attempt to write a readonly database"),
            "(attempt to write a ",
        ),
    ],
)
def test_a_full_or_read_only_disk_is_named(error, words):
    problem = disks.problem(error, "sqlite:///x.db", PLACES)
    assert problem is not None
    assert words in str(problem)
    assert "make room" in str(problem)


def test_a_locked_store_is_named():
    problem = disks.problem(MlflowException("(sqlite3.OperationalError) database is locked"), "sqlite:///x.db", PLACES)
    assert "store sqlite:///x.db is in use by another program" in str(problem) and "start again" in str(problem)


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "x", "/data/a"), ValueError("full"), MlflowException("")])
def test_other_errors_are_not_taken_for_a_full_disk(error):
    assert disks.problem(error, "sqlite:///x.db", PLACES) is None
