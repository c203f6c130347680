"""Decoding in a separate process of DICOM files that need GDCM: lossless JPEG, JPEG-LS and 12-bit JPEG.

GDCM aborts its process on some damaged files. In a separate process this costs only that file; the next one starts a
new process. The process starts with the first such file and ends with its parent.
"""

import atexit
import contextlib
import io
import os
import subprocess  # nosec B404  # for one constant program
import sys
import threading
from pathlib import Path
from typing import IO

import numpy as np
from numpy import ndarray

from cxr.errors import ImageError, in_short

SECONDS = 20  # for one file; then the process is killed
_ROOT = Path(__file__).resolve().parents[2]
_START = "import sys; sys.path.insert(0, sys.argv[1]); from cxr.imaging.dicom_worker import serve; serve()"
_LENGTH_BYTES = 8  # of the length before each message
_PIXELS, _REFUSED = b"p", b"r"  # first byte of a reply


class Decoder:
    """A process that decodes DICOM files. Thread-safe: concurrent calls wait for each other."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def pixels(self, data: bytes) -> ndarray:
        """Return the stored values of a DICOM file, like pydicom's `pixel_array`.

        Raises:
            ImageError: the process crashed or took too long.
            ValueError: GDCM refused the file; the message is GDCM's.
        """
        with self._lock:
            process = self._running()
            requests, replies = _pipes(process)
            watchdog = threading.Timer(SECONDS, process.kill)
            watchdog.start()
            try:
                requests.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
                requests.flush()
                reply = _read(replies)
            except OSError:
                reply = b""
            finally:
                watchdog.cancel()
            if not reply:
                self._end()
                raise ImageError(f"the DICOM file is damaged (its decoder crashed or ran for more than {SECONDS} s)")
        if reply[:1] == _REFUSED:
            raise ValueError(reply[1:].decode())
        return np.load(io.BytesIO(reply[1:]), allow_pickle=False)

    def close(self) -> None:
        """End the process if it is running."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(  # noqa: S603  # nosec B603  # a constant program, and the folder of this package
                [sys.executable, "-c", _START, str(_ROOT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in _pipes(process):
            with contextlib.suppress(OSError):  # buffered bytes cannot be flushed, since the reader is gone
                pipe.close()


def serve() -> None:
    """Run the decoder process: files from standard input, pixels to standard output, until the input ends."""
    from pydicom import dcmread
    from pydicom.pixels import pixel_array

    # C libraries may print to standard output, which must carry replies only.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while data := _read(sys.stdin.buffer):
        try:
            buffer = io.BytesIO()
            np.save(buffer, pixel_array(dcmread(io.BytesIO(data)), decoding_plugin="gdcm"), allow_pickle=False)
            reply = _PIXELS + buffer.getvalue()
        except Exception as error:  # parsers raise many types on damaged files
            reply = _REFUSED + in_short(error).encode()
        out.write(len(reply).to_bytes(_LENGTH_BYTES, "big") + reply)
        out.flush()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and standard output of the process."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the decoder process was started without pipes")
    return process.stdin, process.stdout


def _read(pipe: IO[bytes]) -> bytes:
    """Read one message; empty if the other side has closed the pipe."""
    size = int.from_bytes(pipe.read(_LENGTH_BYTES), "big")
    data = pipe.read(size) if size else b""
    return data if len(data) == size else b""


DECODER = Decoder()
