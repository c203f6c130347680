"""Processes that decode DICOM files, one for each core at most.

A file is answered or refused within bounds, whatever it does to its decoder: `dicom_worker.seconds` bounds the
processor time of one file, and a caller may bound the time that it waits for its turn. Callers get their turns in the
order in which they came. The processes start when they are first needed and end with their parent.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess  # nosec B404  # for one constant program
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO

import numpy as np

from cxr.common.hardware import cores
from cxr.errors import BusyError, ImageError, OverloadedError
from cxr.imaging import dicom_worker
from cxr.imaging.dicom import Dicom
from cxr.imaging.dicom_worker import LENGTH_BYTES

_ROOT = Path(__file__).resolve().parents[2]
_START = "import sys; sys.path.insert(0, sys.argv[1]); from cxr.imaging.dicom_worker import serve; serve()"
_MARGIN_S = 5  # over the elapsed time of the costliest file, before the whole process is ended


class Pool:
    """Decodes DICOM files in other processes. Thread-safe.

    Args:
        size: number of processes; None for one for each core.
    """

    def __init__(self, size: int | None = None):
        self._turns = ThreadPoolExecutor(size or cores(), thread_name_prefix="dicom")
        self._idle: list[subprocess.Popen[bytes]] = []
        atexit.register(self.close)

    def read(self, data: bytes, max_pixels: int, patience: float | None = None) -> Dicom:
        """Decode a DICOM file of at most `max_pixels`.

        Args:
            data: bytes of the file.
            max_pixels: largest width x height that is accepted.
            patience: seconds to wait for a turn; None for as long as it takes.

        Raises:
            ImageError: the file is damaged, not a single image, out of limits or of an unsupported kind.
            OverloadedError: all processes were busy for `patience` seconds.
            BusyError: the system ended a process that is not to blame.
        """
        turn = self._turns.submit(self._decoded, data, max_pixels)
        wait([turn], patience)
        if turn.cancel():  # it has not begun
            raise OverloadedError(
                f"other DICOM files are being decoded, for more than {patience:g} s; send it again later"
            )
        return turn.result()

    def close(self) -> None:
        """End the processes that decode nothing at the moment."""
        while process := self._taken():
            _end(process)

    def _decoded(self, data: bytes, max_pixels: int) -> Dicom:
        process = self._taken() or _started()
        longest = dicom_worker.ELAPSED * dicom_worker.seconds(max_pixels, len(data)) + _MARGIN_S
        watchdog = threading.Timer(longest, _kill, [process])
        watchdog.start()
        try:
            facts, grey = _exchanged(process, data, max_pixels)
        except (OSError, EOFError, ValueError):  # it ended amid the exchange
            _end(process)
            raise BusyError("the process that decodes DICOM files was killed; send the file again") from None
        finally:
            watchdog.cancel()
        self._idle.append(process)
        if "error" in facts:
            raise ImageError(facts["error"])
        return Dicom(np.frombuffer(bytearray(grey), np.uint8).reshape(facts["shape"]), facts["mode"], facts["patient"])

    def _taken(self) -> subprocess.Popen[bytes] | None:
        """An idle process, no longer in the list; None if there is none."""
        with contextlib.suppress(IndexError):
            while process := self._idle.pop():
                if process.poll() is None:
                    return process
                _end(process)
        return None


def _started() -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603  # nosec B603  # a constant program, and the folder of this package
            [sys.executable, "-c", _START, str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # ended as a whole; and a Ctrl-C at the terminal does not look like a damaged file
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # a process must fork without
        )
    except OSError as error:
        raise BusyError(f"no process to decode DICOM files can be started ({error.strerror}); try again") from None


def _exchanged(process: subprocess.Popen[bytes], data: bytes, max_pixels: int) -> tuple[dict, bytes]:
    """Send a file and receive its facts and grey levels."""
    requests, replies = _pipes(process)
    requests.write(len(data).to_bytes(LENGTH_BYTES, "big") + max_pixels.to_bytes(LENGTH_BYTES, "big"))
    requests.write(data)
    requests.flush()
    length = int.from_bytes(replies.read(LENGTH_BYTES), "big")
    facts = replies.readline()
    grey = replies.read(max(0, length - len(facts)))
    if not facts or len(facts) + len(grey) != length:
        raise EOFError
    return json.loads(facts), grey


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and standard output of the process."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the decoder process was started without pipes")
    return process.stdin, process.stdout


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    process.wait()
    for pipe in _pipes(process):
        with contextlib.suppress(OSError):  # buffered bytes cannot be flushed, since the reader is gone
            pipe.close()


POOL = Pool()
