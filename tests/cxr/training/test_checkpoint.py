"""A checkpoint is whole or refused, and runs no code when it is read."""

import errno

import pytest
import torch

from cxr.errors import CxrError
from cxr.training import checkpoint


def test_it_comes_back(tmp_path):
    checkpoint.save({"epoch": 2, "w": torch.ones(3)}, tmp_path / "last.pt")
    state = checkpoint.load(tmp_path / "last.pt")
    assert state["epoch"] == 2
    assert torch.equal(state["w"], torch.ones(3))


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_cut_off(tmp_path, keep):
    file = tmp_path / "last.pt"
    checkpoint.save({"w": torch.ones(300)}, file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CxrError, match=r"is damaged .*; train from scratch, without resume"):
        checkpoint.load(file)


def test_missing_or_of_another_kind(tmp_path):
    with pytest.raises(CxrError, match="does not exist"):
        checkpoint.load(tmp_path / "none.pt")
    torch.save({"epoch": 1}, tmp_path / "other.pt")
    with pytest.raises(CxrError, match="expected format 1, got None"):
        checkpoint.load(tmp_path / "other.pt")


def test_a_full_disk_leaves_the_old_one_whole(tmp_path, monkeypatch):
    file = tmp_path / "last.pt"
    checkpoint.save({"epoch": 1}, file)

    def full(state, target):
        target.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CxrError, match="No space left on device"):
        checkpoint.save({"epoch": 2}, file)
    assert checkpoint.load(file)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [file]
