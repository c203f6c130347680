"""Processes of a machine fill one array together: the bytes of a single one, and whole or absent however they end."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cxr.common.share import Crew, Share
from cxr.errors import CxrError, LostError
from cxr.loading import feature_cache
from cxr.loading.cached_array import ROWS, Plan
from cxr.loading.disk_cache import DiskCache
from cxr.training import distributed
from tests.cxr.training import several
from tests.helpers import free_port, small_set

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("several processes")]  # which start once

ROWS_OF = np.arange(60, dtype=np.float32).reshape(20, 3)
PLAN = Plan("test", {}, ROWS_OF.shape, ROWS_OF.dtype, "20 rows")
AUGMENTED = {"augment.rotate": 20}
BATCHES = 2 * 5 + 3  # of 4: two views of 18 training images, and one of 9 validation images


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return small_set(tmp_path_factory.mktemp("set"))


@dataclass(frozen=True)
class Machine:
    """One of the machines of a test, as its processes see it."""

    name: str
    processes: int


def computed(manifest, folders: dict[str, Path], machines: list[Machine]) -> int:
    """Let this process open the features of a training; returns how many batches of them it has computed itself."""
    machine = machines[int(os.environ["RANK"])]
    os.environ["LOCAL_WORLD_SIZE"] = str(machine.processes)
    calls, run = [], feature_cache.run_frozen

    def counting(prefix, x):
        calls.append(len(x))
        return run(prefix, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: machine.name)
        patch.setattr(feature_cache, "_BATCH", 4)
        patch.setattr(feature_cache, "run_frozen", counting)
        with distributed.group() as processes:
            cache = {"dir": str(folders[machine.name]), "views": 2}
            several.prepared(processes, manifest, AUGMENTED, cache=cache)
    return len(calls)


def features(folder: Path) -> dict[str, bytes]:
    """The bytes of every array of features that counts as whole."""
    return {
        f.name: (f / ROWS).read_bytes() for f, _, _ in DiskCache(folder, 1).listed() if f.name.startswith("features")
    }


@pytest.fixture(scope="module")
def alone(manifest, tmp_path_factory) -> dict[str, bytes]:
    """The features that a single process computes."""
    folder = tmp_path_factory.mktemp("alone")
    assert several.run(1, computed, manifest, {"a": folder}, [Machine("a", 1)]) == [BATCHES]
    found = features(folder)
    assert len(found) == 2
    return found


@pytest.mark.parametrize(
    "names, processes",
    [("aa", (2, 2)), ("aaa", (3, 3, 3)), ("aab", (2, 2, 1)), ("aa", (1, 1))],
    ids=["two", "three", "two machines", "one start for each process"],
)
def test_any_number_of_processes_writes_the_same_bytes(manifest, alone, tmp_path, names, processes):
    machines = [Machine(name, number) for name, number in zip(names, processes, strict=True)]
    folders = {name: tmp_path / name for name in names}
    batches = several.run(len(machines), computed, manifest, folders, machines)
    for name in set(names):
        assert features(folders[name]) == alone
        parts = [done for done, machine in zip(batches, machines, strict=True) if machine.name == name]
        assert sum(parts) == BATCHES
        assert (max(parts) - min(parts) <= 2) or processes == (1, 1)
    assert several.run(len(machines), computed, manifest, folders, machines) == [0] * len(machines)


@pytest.mark.parametrize(
    "hosts, machines",
    [
        (["a 2", "b 1", "a 2"], [[0, 2], [1]]),
        (["a ", "a ", "b "], [[0, 1], [2]]),
        (["a 1", "a 1", "b 1"], [[0], [1], [2]]),
        (["a 2", "a 2", "a 2", "a 2"], [[0], [1], [2], [3]]),
    ],
)
def test_processes_that_may_see_other_files_fill_nothing_together(hosts, machines):
    assert distributed._machines(hosts) == machines


def fill(folder: Path, failing: int | None = None, how: str = "") -> np.ndarray:
    """Let this process fill its rows of an array; one of them ends in the middle."""
    with distributed.group() as processes:
        crew = processes.machine

        def write_own(write):
            part = crew.share.part(20)
            write(part.start, ROWS_OF[part][:2])
            if crew.share.rank == failing:
                if how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise CxrError("image x.png has changed")
            write(part.start + 2, ROWS_OF[part][2:])

        return DiskCache(folder, 1).get(PLAN, write_own, crew).take(np.arange(20))


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_is_heard_by_all_and_leaves_nothing(tmp_path, failing):
    errors = [future.exception() for future in several.start([0, 1, 2], 3, fill, tmp_path, failing)]
    assert str(errors.pop(failing)) == "image x.png has changed"
    assert [type(error) for error in errors] == [LostError, LostError]
    assert {str(error) for error in errors} == {f"process {failing} of 3: image x.png has changed"}
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert all((rows == ROWS_OF).all() for rows in several.run(3, fill, tmp_path))


def fill_and_hear_late(folder: Path, failing: int) -> np.ndarray:
    """As `fill`; the last process is slow to ask why another has ended."""
    if os.environ["RANK"] != "2":
        return fill(folder, failing)
    lost = distributed.Processes._lost
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed.Processes, "_lost", lambda self: time.sleep(2) or lost(self))
        return fill(folder, failing)


@pytest.mark.parametrize("failing", [0, 1])
def test_the_first_process_stays_until_the_others_know_why(tmp_path, failing):
    errors = [future.exception() for future in several.start([0, 1, 2], 3, fill_and_hear_late, tmp_path, failing)]
    assert str(errors[2]) == f"process {failing} of 3: image x.png has changed"


def member(rank: int, port: int) -> dict[str, str]:
    """The variables of one of two processes of a machine."""
    numbers = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return numbers | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def meet_and_die(rank: int, port: int, folder: Path) -> None:
    os.environ |= member(rank, port)
    fill(folder, rank, "killed")


def test_a_process_that_is_killed_leaves_nothing_that_counts_as_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "LAST_WORDS_S", 0.2)
    ports, context = [free_port(), free_port()], multiprocessing.get_context("spawn")
    victims = [context.Process(target=meet_and_die, args=(rank, ports[rank], tmp_path / str(rank))) for rank in (0, 1)]
    for victim in victims:
        victim.start()
    for rank, victim in enumerate(victims):
        for name, value in member(1 - rank, ports[rank]).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(LostError, match="another process of this training ended without a message"):
            fill(tmp_path / str(rank))
        victim.join(60)
        assert victim.exitcode == -signal.SIGKILL
        cache = DiskCache(tmp_path / str(rank), 1)
        assert cache.find(PLAN) is None and not list(cache.listed())
        found = cache.get(PLAN, lambda write: write(0, ROWS_OF))
        assert (found.take(np.arange(20)) == ROWS_OF).all()
        assert [path.name for path in cache.folder.iterdir() if path.is_dir()] == [PLAN.name]


def refused(folder: Path) -> np.ndarray:
    """Let this process open an array that another run fills."""
    with distributed.group() as processes:
        crew = processes.machine
        return DiskCache(folder, 1).get(PLAN, lambda write: pytest.fail("filled twice"), crew).take(np.arange(20))


def test_they_wait_for_a_run_that_is_filling_it(tmp_path):
    found: list[np.ndarray] = []
    waiting = threading.Thread(target=lambda: found.extend(several.run(2, refused, tmp_path)))

    def slow(write):
        waiting.start()
        time.sleep(1.5)
        assert waiting.is_alive()
        write(0, ROWS_OF)

    DiskCache(tmp_path, 1).get(PLAN, slow)
    waiting.join(120)
    assert len(found) == 2 and all((rows == ROWS_OF).all() for rows in found)


def test_a_cache_that_is_not_shared_is_told_in_one_line(tmp_path):
    class Elsewhere(Crew):
        share = Share(1, 2)

        def from_first(self, value):
            return tmp_path / "not-here"

    with pytest.raises(CxrError, match=r"not-here/rows\.bin: made by the first process of this machine, and not seen"):
        DiskCache(tmp_path, 1).get(PLAN, lambda write: None, Elsewhere())


def test_rows_that_nobody_writes_are_an_error_of_the_program(tmp_path):
    with pytest.raises(ValueError, match="19 of 20 rows were written"):
        DiskCache(tmp_path, 1).get(PLAN, lambda write: write(0, ROWS_OF[:19]))
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
