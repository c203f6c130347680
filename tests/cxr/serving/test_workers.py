"""The folder in which processes count together: who lives, who is gone, and that nothing stays behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.errors import CxrError
from cxr.serving import workers
from cxr.serving.workers import Crew

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _variable(monkeypatch):
    monkeypatch.setenv(workers.VARIABLE, "as it was")


def names(folder) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_the_last_process_removes_the_folder(tmp_path):
    first, second = Crew(tmp_path, 1, 10), Crew(tmp_path, 1, 11)
    assert first.folder == second.folder and os.environ[workers.VARIABLE] == str(first.folder)
    assert first.folder.stat().st_mode & 0o777 == 0o700
    for worker in (10, 11):
        for name in (f"counter_{worker}.db", f"gauge_livesum_{worker}.db"):
            (first.folder / name).touch()
    first.leave()
    # What it counted stays, what it was working on does not.
    assert names(second.folder) == {"counter_10.db", "counter_11.db", "gauge_livesum_11.db", "11.alive"}
    second.leave()
    assert not second.folder.exists()


def test_the_work_of_a_process_that_was_killed_is_forgotten_and_its_counts_are_not(tmp_path):
    code = "import sys; from pathlib import Path; from cxr.serving.workers import Crew; Crew(Path(sys.argv[1]), 1, 12)"
    code += "; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=os.fspath(ROOT)
    ) as other:
        assert other.stdout.readline() == b"ready\n"
        crew = Crew(tmp_path, 1, 13)
        for name in ("counter_12.db", "gauge_livesum_12.db"):
            (crew.folder / name).touch()
        crew.bury()
        assert "gauge_livesum_12.db" in names(crew.folder)
        other.kill()
        other.wait()
    crew.bury()
    assert names(crew.folder) == {"counter_12.db", "13.alive"}
    crew.leave()
    assert not crew.folder.exists()


def test_folders_of_servers_that_were_killed_are_removed_by_the_next(tmp_path):
    (tmp_path / f"cxr-metrics-{os.getuid()}-5").mkdir(mode=0o700)
    (tmp_path / f"cxr-metrics-{os.getuid() + 1}-5").mkdir()
    living = Crew(tmp_path, 1, 10)
    crew = Crew(tmp_path, 2, 20)
    left = {folder.name for folder in tmp_path.glob("cxr-metrics-*-*")}
    assert left == {living.folder.name, crew.folder.name, f"cxr-metrics-{os.getuid() + 1}-5"}
    living.leave()
    crew.leave()


@pytest.mark.parametrize("kind", ["link", "open to others"])
def test_a_folder_of_somebody_else_is_refused(tmp_path, kind):
    folder = tmp_path / f"cxr-metrics-{os.getuid()}-1"
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    if kind == "link":
        folder.symlink_to(other)
    else:
        held = Crew(tmp_path, 1, 9)  # so that it is not swept away
        held.folder.chmod(0o755)
    with pytest.raises(CxrError, match="belongs to somebody else"):
        Crew(tmp_path, 1, 10)
    assert not names(other)


def test_room_is_taken_before_it_is_needed(tmp_path, monkeypatch):
    crew = Crew(tmp_path, 1, 10)
    file = crew.folder / "counter_10.db"
    with file.open("wb") as opened:
        opened.truncate(1 << 16)
    assert file.stat().st_blocks == 0
    crew.reserve()
    assert file.stat().st_blocks * 512 >= 1 << 16

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(CxrError, match="no room to count requests"):
        crew.reserve()
    crew.leave()


def test_a_single_process_needs_no_folder():
    assert workers.join() is None and workers.VARIABLE not in os.environ
