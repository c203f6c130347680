"""Decodes in a process of its own what only GDCM decodes: lossless JPEG, JPEG-LS and 12-bit JPEG in DICOM files.

GDCM aborts its whole process on some damaged files. Here that costs one file; the next one gets a new process. A
process is started with the first such file and ends with the one that started it.
"""

import atexit
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from numpy import ndarray

from cxr.errors import ImageError, in_short

SECONDS = 20  # for one file, then its process is ended
_ROOT = Path(__file__).resolve().parents[2]
_START = "import sys; sys.path.insert(0, sys.argv[1]); from cxr.imaging.dicom_worker import serve; serve()"
_HEAD = 8  # bytes of a length
_PIXELS, _REFUSED = b"p", b"r"


class Decoder:
    """A process that decodes; safe to ask from several threads, which wait for each other."""

    def __init__(self):
        self._lock, self._process = threading.Lock(), None
        atexit.register(self.close)

    def pixels(self, data: bytes) -> ndarray:
        """Stored values of a DICOM file, as pydicom's `pixel_array`.

        Raises `ImageError` where the process gave up, and `ValueError` with GDCM's words where it refused.
        """
        with self._lock:
            process = self._running()
            watch = threading.Timer(SECONDS, process.kill)
            watch.start()
            try:
                process.stdin.write(len(data).to_bytes(_HEAD, "big") + data)
                process.stdin.flush()
                reply = _read(process.stdout)
            except OSError:
                reply = b""
            finally:
                watch.cancel()
            if not reply:
                self._end()
                raise ImageError("the DICOM file is damaged (its decoder gave up)")
        if reply[:1] == _REFUSED:
            raise ValueError(reply[1:].decode())
        return np.load(io.BytesIO(reply[1:]), allow_pickle=False)

    def close(self) -> None:
        """End the process, where there is one."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(  # noqa: S603 - our own words, and the place of this file
                [sys.executable, "-c", _START, str(_ROOT)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            try:
                pipe.close()
            except OSError:  # what was left to be written has no reader any more
                continue


def serve() -> None:
    """The work of that process: files from standard input, pixels to standard output, until the input ends."""
    from pydicom import dcmread
    from pydicom.pixels import pixel_array

    # Libraries in C may print; only replies may reach the other side.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    while data := _read(source):
        try:
            buffer = io.BytesIO()
            np.save(buffer, pixel_array(dcmread(io.BytesIO(data)), decoding_plugin="gdcm"), allow_pickle=False)
            reply = _PIXELS + buffer.getvalue()
        except Exception as error:  # as in cxr.imaging.dicom
            reply = _REFUSED + in_short(error).encode()
        out.write(len(reply).to_bytes(_HEAD, "big") + reply)
        out.flush()


def _read(pipe: io.BufferedIOBase) -> bytes:
    """One message, or nothing where the other side has gone."""
    size = int.from_bytes(pipe.read(_HEAD), "big")
    data = pipe.read(size) if size else b""
    return data if len(data) == size else b""


DECODER = Decoder()
