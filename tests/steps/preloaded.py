"""Processes of steps that start with everything imported: forks of one process that has done nothing else yet.

The imports of torch and MLflow are most of what a step costs on a few phantoms, and the suite starts hundreds of steps.
`serve` imports them once. Programs named `mlflow` and `python`, which `running` makes for the head of PATH, ask it for
a fork that takes over their arguments, environment, folder, output and exit status. So everything else is as on a
command line: `mlflow run` starts bash, which starts `python -m steps.main`, which starts the steps. Tests of signals,
of kills and of several processes that work together start real ones (`Workflow.start`).
"""

import ctypes
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.steps import undrawn

ROOT = Path(__file__).resolve().parents[2]
CLIENT = Path(__file__).with_name("preloaded_client.py")
# Not the entry points themselves: these run as `__main__`. The last four are what an export to ONNX imports.
IMPORTED = (
    *(f"steps.work.{file.stem}" for file in sorted((ROOT / "steps/work").glob("[a-z]*.py"))),
    "mlflow.cli",
    "mlflow.projects.backend.local",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "optuna",
    "torch.export",
    "torch._dynamo",
    "torch.onnx._internal.exporter._core",
    "onnxscript",
)
_PARENT_ENDS = 1  # PR_SET_PDEATHSIG


@contextmanager
def running(folder: Path, imported: tuple[str, ...] = IMPORTED) -> Iterator[Path]:
    """A folder of the two programs, for as long as the process that answers them runs; `folder` is for its files."""
    address, programs = folder / "socket", folder / "bin"
    programs.mkdir()
    for name in ("mlflow", "python"):
        real = Path(sys.executable).parent / name
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -IS {CLIENT} {address} {real} "$@"\n')
        (programs / name).chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen(64)  # who asks before the imports are done waits
        words = (str(listening.fileno()), str(programs / "python"), *imported)
        command = [sys.executable, "-m", "tests.steps.preloaded", *words]
        with (folder / "log.txt").open("wb") as log:
            server = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},  # it starts a thread while it is imported
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
    try:
        yield programs
    finally:
        server.terminate()
        code = server.wait(30)
    assert code == -signal.SIGTERM, (folder / "log.txt").read_text()


def first_on_path(programs: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment with a folder at the head of PATH."""
    return environment | {"PATH": f"{programs}{os.pathsep}{environment['PATH']}"}


def serve(listening: socket.socket, python: str, imported: list[str]) -> Callable[[], Any]:
    """Answer every request by a fork; returns in the fork alone, with what it has to run."""
    for name in imported:
        import_module(name)
    assert threading.active_count() == 1, f"a fork would lack the threads {threading.enumerate()}"
    gc.collect()
    gc.freeze()  # or the collector would copy all pages into every fork
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    asking: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor of a fork: its ID, and who has asked for it
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                connection = listening.accept()[0]
                try:
                    request, files = _request(connection)
                except ValueError:  # it was killed before it had said all
                    connection.close()
                    continue
                if (pid := os.fork()) == 0:
                    selector.close()
                    for descriptor, (_, other) in asking.items():
                        os.close(descriptor)
                        other.close()
                    connection.close()
                    listening.close()
                    return _taken_over(request, files, python)
                for file in files:
                    os.close(file)
                descriptor = os.pidfd_open(pid)
                asking[descriptor] = pid, connection
                selector.register(descriptor, selectors.EVENT_READ, descriptor)
                selector.register(connection, selectors.EVENT_READ, descriptor)
                continue
            pid, connection = asking.get(key.data, (0, None))
            if key.fileobj is connection:  # a signal to pass on; nothing: who has asked was killed
                if not (told := connection.recv(1)):
                    selector.unregister(connection)
                os.kill(pid, told[0] if told else signal.SIGKILL)
            elif key.fileobj == key.data:  # the fork has ended
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(OSError, KeyError):  # who has asked may be gone
                    connection.sendall(bytes([code if code >= 0 else 128 - code]))
                    selector.unregister(connection)
                selector.unregister(key.data)
                os.close(key.data)
                connection.close()
                del asking[key.data]


def _request(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What is asked for, and the descriptors of input, output and errors."""
    size, files, _, _ = socket.recv_fds(connection, 8, 3)
    return json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)), files


def _taken_over(request: dict[str, Any], files: list[int], python: str) -> Callable[[], Any]:
    """Make this process that of the request; returns what it has to run."""
    ctypes.CDLL(None).prctl(_PARENT_ENDS, signal.SIGKILL)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    tempfile.tempdir = None  # of the environment before
    sys.executable = python  # for what it starts
    if undrawn.VARIABLE in os.environ:
        import_module("matplotlib.figure").Figure.savefig = undrawn.save
    program, *words = request["words"]
    if program == "mlflow":
        sys.argv = ["mlflow", *words]
        return import_module("mlflow.cli").cli
    sys.argv = words[1:]
    return lambda: runpy.run_module(words[1], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    try:
        run = serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2], sys.argv[3:])
    except Exception:
        traceback.print_exc()
        os._exit(1)  # at once: who has asked sees the end of the connection, and the suite asks for the exit status
    run()
