"""Several processes train what one trains: losses, gradients and weights, wherever they resume, however they end."""

import os
import socket
import time
from dataclasses import replace

import pytest
import torch

from cxr.common.share import Share
from cxr.errors import CxrError, LostError
from cxr.models.device import Device
from cxr.training import distributed
from cxr.training.distributed import MeetingError, Processes
from tests.cxr.training import several

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("several processes")]  # which start once

EVERYTHING = {
    "scheduler": "{_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: all}",
    "scheduler_step": "batch", "warmup": 1.0, "ema": 0.5, "layer_decay": 0.8, "clip_norm": 1.0, "select": "robust",
    "select_images": 4, "sampler": "balanced", "class_weights": "none", "dropout": 0.3, "augment.mixup": 0.3,
    "augment.cutmix": 0.3, "augment.frame": 0.3, "augment.rotate": 10, "augment.noise": 0.05,
    "augment.crop_scale": "[0.6, 1.0]",
}  # fmt: skip


@pytest.fixture(scope="module")
def uneven(manifest):
    """The small set with classes of different sizes: 15 training images, in batches of 8 and 7."""
    rows = manifest.rows[~((manifest.rows["label"] == "virus") & manifest.rows["path"].str.contains(r"-[236]\."))]
    return replace(manifest, rows=rows)


def close(one: dict, other: dict, tolerance: float = 1e-4) -> None:
    """All values together are nearly the same; some are nearly 0, and have rounding alone."""
    assert one.keys() == other.keys() and one
    ours, theirs = (torch.cat([values[name].double().flatten() for name in one]) for values in (one, other))
    assert (ours - theirs).norm() < tolerance * theirs.norm()


@pytest.mark.parametrize(
    "overrides, unfreeze",
    [
        ({}, 2),
        ({"batch_norm": "frozen", "loss._target_": "cxr.training.losses.FocalLoss"}, 2),
        (EVERYTHING, "all"),
        ({"loss": "{_target_: torch.nn.MultiMarginLoss}", "class_weights": "none", "batch_size": 7}, 0),
    ],
    ids=["plain", "focal", "everything", "other loss"],
)
def test_loss_and_gradients_are_those_of_one_process(uneven, overrides, unfreeze):
    whole = several.run(1, several.first_step, uneven, overrides, unfreeze=unfreeze)[0]
    parts = several.run(3, several.first_step, uneven, overrides, unfreeze=unfreeze)
    torch.testing.assert_close(torch.cat([part["x"] for part in parts]), whole["x"])  # the very same pictures
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), whole["y"])
    for part in parts:
        assert part["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        close(part["gradients"], whole["gradients"], 1e-5)
        if whole["statistics"]:
            close(part["statistics"], whole["statistics"], 1e-6)


@pytest.mark.parametrize("overrides", [{}, EVERYTHING], ids=["plain", "everything"])
def test_a_training_is_that_of_one_process(uneven, overrides):
    """In batches of 13 and 2, the last of which has fewer images than three processes."""
    overrides = {**overrides, "batch_size": 13}
    whole = several.run(1, several.trained, uneven, overrides)[0]
    parts = several.run(3, several.trained, uneven, overrides)
    for part in parts:
        close(part["weights"], whole["weights"])
        for now, then in zip(part["history"], whole["history"], strict=True):
            assert now.values() == pytest.approx(then.values(), rel=1e-3)
        assert all(torch.equal(value, parts[0]["weights"][name]) for name, value in part["weights"].items())


def test_it_resumes_with_another_number_of_processes(uneven):
    unbroken = several.run(1, several.trained, uneven, EVERYTHING)[0]
    for before, after in ((2, 3), (3, 1), (1, 2)):
        state = several.run(before, several.trained, uneven, EVERYTHING)[0]["states"][0]
        assert state["epoch"] == 1
        resumed = several.run(after, several.trained, uneven, EVERYTHING, resume=state)[0]
        close(resumed["weights"], unbroken["weights"])


@pytest.mark.parametrize("world", [1, 3])
def test_validation_counts_every_image_once(manifest, world):
    """Nine images in batches of 8 and 1: the last of these is seen by all processes."""
    assert len(manifest.split("val")) == 9
    whole = several.run(1, several.validated, manifest)[0]["scores"]
    for part in several.run(world, several.validated, manifest):
        assert part["seen"] == 9
        assert part["scores"].val_loss == pytest.approx(whole.val_loss, rel=1e-5)
        assert part["scores"].val_metric == whole.val_metric


def test_training_on_caches_that_they_fill_together_changes_nothing(uneven, tmp_path):
    cache = {"dir": str(tmp_path / "cache"), "views": 1}
    exact = several.run(1, several.trained, uneven, {})[0]
    for part in several.run(3, several.trained, uneven, {}, cache=cache):
        close(part["weights"], exact["weights"])
    folders = sorted(path.name.split("-")[0] for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert folders == ["decoded", "decoded", "features", "features"]


def fail(kind: str) -> None:
    """One of three processes ends while the others wait for it."""
    with distributed.group() as processes:
        if processes.share.rank == 1:
            if kind == "killed":
                time.sleep(1)
                os.kill(os.getpid(), 9)
            raise CxrError("image x.png has changed")
        processes.total(torch.ones(3))


def test_an_error_of_one_process_is_heard_by_all():
    first, failed, third = several.start([0, 1, 2], 3, fail, "error")
    assert str(failed.exception()) == "image x.png has changed"
    for future in (first, third):
        error = future.exception()
        assert isinstance(error, LostError)
        assert str(error) == "process 1 of 3: image x.png has changed"


def meet() -> int:
    with distributed.group() as processes:
        added = int(processes.total(torch.ones(1)))
        while processes.store.add("cxr/here/1", 0) < 2:  # the one of the other job has not asked yet
            time.sleep(0.05)
        return added


def test_a_process_of_another_job_on_the_same_port_is_refused():
    first, *others = several.start([0, 1, 1], 2, meet)
    assert first.result() == 2
    errors = [future.exception() for future in others]
    refused = next(error for error in errors if error is not None)
    assert isinstance(refused, MeetingError) and "RANK=1 is there already; give each job a port of its own" in str(
        refused
    )
    assert errors.count(None) == 1


@pytest.fixture
def variables(monkeypatch):
    """Function that sets the variables of one of two processes."""
    monkeypatch.setattr(distributed, "MEETING_S", 2.0)

    def set_them(rank: int, address: str, port: int) -> None:
        values = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": address, "MASTER_PORT": port}
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return set_them


def refused() -> str:
    with pytest.raises(MeetingError) as error, distributed.group():
        pass
    return str(error.value)


def test_a_wrong_address_is_told_in_one_line(variables):
    variables(1, "no-such-host.invalid", 29500)
    assert "MASTER_ADDR=no-such-host.invalid, MASTER_PORT=29500: no such host" in refused()
    port = several.free_port()
    for rank in (0, 1):
        variables(rank, "127.0.0.1", port)  # nobody else comes; nobody is there
        assert f"MASTER_PORT={port}: 2 processes did not meet there within 2 s" in refused()


def test_a_port_that_another_job_uses_is_told_in_one_line(variables):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        variables(0, "127.0.0.1", other.getsockname()[1])
        assert "the port is in use, perhaps by another job; give this one a free port" in refused()


def test_a_process_without_a_card_of_its_own_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(CxrError, match="needs a card of its own, and there are 2; start at most 2 processes here"):
        Processes(Share(2, 3)).use(Device(torch.device("cuda"), torch.float32))
