"""Shares of the work: every image belongs to one process, and the variables that say which are checked."""

import pytest

from cxr.common import share
from cxr.common.hardware import cores
from cxr.common.share import Share
from cxr.errors import CxrError


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
def test_every_row_of_a_batch_is_in_one_share(world, count):
    shares = [list(range(count))[Share(rank, world).rows(count)] for rank in range(world)]
    if count < world:
        assert shares == [list(range(count))] * world, "all of it for each"
        return
    assert [row for rows in shares for row in rows] == list(range(count))
    assert [len(rows) for rows in shares] == Share(0, world).sizes(count)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def variables(monkeypatch, **values):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
        if name in values:
            monkeypatch.setenv(name, values[name])


def test_the_share_is_that_of_the_variables(monkeypatch):
    variables(monkeypatch)
    assert share.from_environment() == Share(0, 1)
    there = {"MASTER_ADDR": "node-1", "MASTER_PORT": "29500"}
    variables(monkeypatch, RANK="2", WORLD_SIZE="4", LOCAL_RANK="1", **there)
    assert share.from_environment() == Share(2, 4)
    assert share.local_rank() == 1
    variables(monkeypatch, RANK="2", WORLD_SIZE="4", **there)
    assert share.local_rank() == 0


@pytest.mark.parametrize(
    "values, words",
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2: expected a rank from 0 to 1"),
        ({"RANK": "0"}, "WORLD_SIZE='': expected a whole number; start the processes with torchrun"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK='-1': expected a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}, "MASTER_ADDR is not; set it"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "MASTER_PORT is not; set it"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "65536"}, "expected a port from 1 to"),
    ],
)
def test_variables_that_say_nothing_clear_are_refused(monkeypatch, values, words):
    variables(monkeypatch, **values)
    with pytest.raises(CxrError, match=words):
        share.from_environment()


def test_processes_on_a_machine_share_its_cores(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert cores() == max(1, alone // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(10 * alone))
    assert cores() == 1
