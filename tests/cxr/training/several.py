"""Several processes for the tests of training: a function runs in each of them, and its results come back."""

import copy
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import torch

from cxr.models import device
from cxr.settings.schema import CacheSettings
from cxr.training import distributed, setup
from cxr.training.loop import Callbacks, Training, set_train_mode, train, validate
from tests.helpers import free_port, network, settings_with

CPU = device.Device(torch.device("cpu"), torch.float32)


def start(ranks: list[int], world: int, work: Callable, *args: Any, **kwargs: Any) -> list[Future]:
    """What becomes of `work(...)` in a process for each of `ranks`; all are over."""
    port = free_port()
    futures = [_pool().submit(_one, rank, world, port, work, args, kwargs) for rank in ranks]
    for future in futures:
        with suppress(Exception):
            future.result(300)
    return futures


def run(world: int, work: Callable, *args: Any, **kwargs: Any) -> list[Any]:
    """The results of `work(...)` in `world` processes, by rank."""
    return [future.result() for future in start(list(range(world)), world, work, *args, **kwargs)]


@cache
def _pool() -> ProcessPoolExecutor:
    """Three processes: to start each takes longer than most of what they are asked to do."""
    return ProcessPoolExecutor(3, multiprocessing.get_context("spawn"))


def _one(rank: int, world: int, port: int, work: Callable, args: tuple, kwargs: dict) -> Any:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    device.prepare(0, deterministic=True)
    torch.set_num_threads(1)
    return work(*args, **kwargs)


def prepared(processes, manifest, overrides, *, unfreeze=2, cache=None, callbacks=None) -> Training:
    """A small training, as `set_up` makes it."""
    keys = {"epochs": 3, "batch_size": 8, "patience": 10, "optimizer._target_": "torch.optim.SGD", **overrides}
    named = {f"train.{key}": value for key, value in {"optimizer.lr": 0.01, **keys}.items()}
    settings = settings_with({"cache.features": "false", **named})
    stored = CacheSettings(**{**settings.cache.model_dump(), "features": True, **cache}) if cache is not None else None
    return setup.set_up(
        network(), manifest, settings.train, unfreeze=unfreeze, device=CPU, seed=1, cache=stored, processes=processes,
        callbacks=callbacks,
    )  # fmt: skip


def trained(manifest, overrides, *, resume=None, **more) -> dict[str, Any]:
    """The epochs of a training, its weights, and its last checkpoint."""
    states: list[dict] = []
    with distributed.group() as processes:
        keep = Callbacks(on_checkpoint=lambda state: states.append(copy.deepcopy(state)))
        t = prepared(processes, manifest, overrides, callbacks=keep, **more)
        result = train(t, resume)
    history = [replace(epoch, images_per_second=0, epoch_seconds=0) for epoch in result.history]
    return {"start": result.start, "history": history, "weights": t.suffix.state_dict(), "states": states}


def first_step(manifest, overrides, **more) -> dict[str, Any]:
    """Loss, gradients and statistics of batch norms of the first batch, and its images in this process.

    The network computes in float64: in float32, rounding alone changes gradients of so few pixels by a hundredth.
    """
    with distributed.group() as processes:
        t = prepared(processes, manifest, overrides, **more)
        t.prefix.double(), t.suffix.double()
        torch.manual_seed(5)
        set_train_mode(t.suffix, t.settings.batch_norm)
        x, y = next(iter(t.train.epoch(1)))
        count = t.train.sizes()[0]
        loss = t.batch_loss(x.double(), y, count)
        loss.backward()
        t.processes.sum_gradients(t.suffix.parameters(), count)
    gradients = {name: p.grad.clone() for name, p in t.suffix.named_parameters() if p.grad is not None}
    statistics = {name: b.clone() for name, b in t.suffix.named_buffers() if "running" in name}
    return {"loss": loss.item(), "gradients": gradients, "statistics": statistics, "x": x, "y": y}


def validated(manifest) -> dict[str, Any]:
    """Scores of the weights that training begins with, and how many images the metric has seen."""
    with distributed.group() as processes:
        t = prepared(processes, manifest, {})
        t.metric.dist_sync_fn = _added_up
        scores = validate(t, 0)
        return {"scores": scores, "seen": int((t.metric.tp + t.metric.fn).sum())}


def _added_up(*_: Any, **__: Any) -> None:
    raise AssertionError("the metric has all images already, and would count them once for each process")
