"""A step as a process: it ends when it is told to, and does not outlive the one who started it."""

import os
import platform
import signal
import threading

import psutil

POLL_S = 2.0
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish"}


def stop_on_sigterm() -> None:
    """Turn SIGTERM into KeyboardInterrupt, so that both ways to stop a step run the same tidy ending."""

    def interrupt(signum, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not break the ending itself
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


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
