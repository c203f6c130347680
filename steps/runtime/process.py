"""Process of a step: it stops on signals, and does not outlive the process that started it."""

import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, cast

import psutil

POLL_S = 2.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "fish"}
_Wrapped = TypeVar("_Wrapped")


class _Signals:
    """State shared with the signal handler: whether a stop is pending, and how many `unbroken` blocks are open."""

    stop_pending = False
    open_blocks = 0


def stop_on_signals() -> None:
    """Raise KeyboardInterrupt on SIGTERM as on Ctrl-C, so that both run the same cleanup."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
        if _Signals.open_blocks:
            _Signals.stop_pending = True
        else:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def hides_interrupt(error: Exception) -> bool:
    """Whether the error comes from cleanup after a signal, as from `torch.save`, whose file cannot be closed then."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause is not None


@contextmanager
def unbroken() -> Iterator[None]:
    """Delay signals until the end of the block.

    An interrupted transaction of the store stays open as long as its exception lives, and locks out the next writer,
    which includes the step's own cleanup. Only the main thread receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Signals.open_blocks += 1
    try:
        yield
    finally:
        _Signals.open_blocks -= 1
    if _Signals.stop_pending and not _Signals.open_blocks:
        _Signals.stop_pending = False
        raise KeyboardInterrupt


def with_unbroken_calls(target: _Wrapped) -> _Wrapped:
    """Wrap an object so that signals do not interrupt its methods."""
    return with_calls(target, _unbroken_call)


def with_calls(target: _Wrapped, around: Callable[[Callable], Callable]) -> _Wrapped:
    """Wrap an object so that each of its methods is what `around` makes of it."""
    return cast("_Wrapped", _WrappedCalls(target, around))


class _WrappedCalls:
    def __init__(self, target: Any, around: Callable[[Callable], Callable]):
        self._target, self._around = target, around

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        return wraps(attribute)(self._around(attribute)) if callable(attribute) else attribute


def _unbroken_call(method: Callable) -> Callable:
    def call(*args, **kwargs):
        with unbroken():
            return method(*args, **kwargs)

    return call


def stop_with_starter(within_s: float | None = None) -> None:
    """Stop this step when the process that runs the project (the driver, or `mlflow run`) is gone.

    A driver killed by SIGKILL cannot stop its step, and `mlflow run` on SIGTERM leaves its command running; nothing
    would wait for such a step any more.
    With `within_s`, a step that has not stopped in as many seconds is ended.
    """
    starter = next((parent for parent in psutil.Process().parents() if parent.name() not in _SHELLS), None)
    if starter is None or starter.pid == 1:
        return

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):
            while starter.is_running() and starter.status() != psutil.STATUS_ZOMBIE:
                never_set.wait(POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)
        if within_s is not None:
            never_set.wait(within_s)
            os._exit(130)

    never_set = threading.Event()  # waiting on it is a sleep that ends with the process
    threading.Thread(target=watch, name="starter-watch", daemon=True).start()


def identity() -> str:
    """This process in a form that `alive` can check later: host, pid and start."""
    return f"{_host()}:{os.getpid()}:{_start(os.getpid())}"


def alive(identity: str) -> bool:
    """Whether the process may still run; always true for a process of another host."""
    host, pid, started = identity.rsplit(":", 2)
    if host != _host():
        return True
    try:
        if "/" in started:
            return _start(int(pid)) == started
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < 1.0
    except psutil.NoSuchProcess:
        return False


def stop(identity: str) -> None:
    """Ask a process of this host to end, as SIGTERM does; one that is gone, or of another host, is left alone."""
    host, pid, _ = identity.rsplit(":", 2)
    if host == _host() and alive(identity):
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)


def stop_children() -> None:
    """Ask the steps that this process has launched to end; processes of theirs are left to them."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process().children():
            for launched in child.children() if child.name() in _SHELLS else [child]:
                with suppress(psutil.NoSuchProcess):
                    launched.terminate()


def _start(pid: int) -> str:
    """When a process began.

    On Linux `BOOT/TICKS`: ID of the machine's start, and the time since then, which stay as they are when the clock is
    set. Elsewhere, and in what earlier versions have stored, seconds since 1970.

    Raises:
        psutil.NoSuchProcess: it is gone.
    """
    try:
        boot_id, stat = _BOOT_ID.read_text().strip(), Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # not Linux, or the process is gone
        return f"{psutil.Process(pid).create_time():.2f}"
    # The second field, the name in brackets, may hold spaces and brackets; the start is the 22nd.
    return f"{boot_id}/{int(stat.rpartition(b')')[2].split()[19])}"


def _host() -> str:
    return platform.node()
