"""A step as a process: it ends when it is told to, and does not outlive the one who started it."""

import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import psutil

POLL_S = 2.0
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish"}


class _Stop:
    """What is known of a wish to stop: whether it came, and how many calls must not be broken off right now."""

    wanted = False
    calls = 0


def stop_on_signals() -> None:
    """Turn SIGTERM into KeyboardInterrupt as Ctrl-C is, so that both ways to stop a step run the same tidy ending."""

    def interrupt(signum, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not break the ending itself
        if _Stop.calls:
            _Stop.wanted = True
        else:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


@contextmanager
def unbroken() -> Iterator[None]:
    """Let a signal that comes meanwhile wait until the block is over.

    A transaction of the store that is broken off stays open as long as its exception lives, and locks out whoever
    writes next, the step's own ending among them. Signals reach the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Stop.calls += 1
    try:
        yield
    finally:
        _Stop.calls -= 1
    if _Stop.wanted and not _Stop.calls:
        _Stop.wanted = False
        raise KeyboardInterrupt


class Unbroken:
    """Another object whose methods signals do not break off."""

    def __init__(self, inner: Any):
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        @wraps(found)
        def call(*args, **kwargs):
            with unbroken():
                return found(*args, **kwargs)

        return call


def stop_with_starter() -> None:
    """Stop this step when the process that runs the project (the driver, or `mlflow run`) is gone.

    A driver that got SIGKILL cannot stop its step, and `mlflow run` that got SIGTERM leaves its command running;
    nobody would wait for such a step any more.
    """
    starter = next((p for p in psutil.Process().parents() if p.name() not in _SHELLS), None)
    if starter is None or starter.pid == 1:
        return

    def watch():
        while starter.is_running() and starter.status() != psutil.STATUS_ZOMBIE:
            stopped.wait(POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    stopped = threading.Event()  # never set: waiting on it is a sleep that ends with the process
    threading.Thread(target=_quietly(watch), name="starter-watch", daemon=True).start()


def _quietly(watch):
    def run():
        try:
            watch()
        except psutil.NoSuchProcess:
            os.kill(os.getpid(), signal.SIGTERM)

    return run


def identity() -> str:
    """This process in a form that `alive` can check later: host, pid and start time."""
    process = psutil.Process()
    return f"{_host()}:{process.pid}:{process.create_time():.2f}"


def alive(identity: str) -> bool:
    """True unless the process is known to be gone; a process of another host cannot be known."""
    host, pid, started = identity.rsplit(":", 2)
    if host != _host():
        return True
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < 1.0
    except psutil.NoSuchProcess:
        return False


def _host() -> str:
    return platform.node()
