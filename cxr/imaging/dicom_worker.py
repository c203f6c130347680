"""The process that decodes DICOM files, as a program: `serve` (see `cxr.imaging.dicom_pool`, which starts it).

Each file is decoded in a fork of this process, within limits of time and memory. The libraries that decode DICOM files
crash, hang or swell on some damaged ones: this ends the fork and costs that file alone, and its successor is there in a
few milliseconds.
"""

import json
import os
import resource
import select
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from cxr.errors import ImageError
from cxr.imaging import dicom

LENGTH_BYTES = 8  # of a number in a message
ELAPSED = 4  # elapsed time / processor time that a file may take: other processes need the processor too
# Memory that a fork may take besides that of this process; JPEG 2000 needs most.
_BYTES_PER_PIXEL, _BYTES_PER_BYTE, _BYTES_MORE = 16, 6, 128 << 20
_TOO_LONG = (signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU)


def seconds(pixels: int, file_bytes: int) -> float:
    """Processor time that a file may take: 0.5 s, 0.1 s for a million pixels and 0.5 s for a megabyte.

    That is five times what files of the slowest kind, JPEG 2000, take.
    """
    return 0.5 + 0.1 * pixels / 1e6 + 0.5 * file_bytes / 1e6


def serve() -> None:
    """Decode files from standard input to standard output, until the input ends."""
    for library in ("pydicom.pixels.decoders", "PIL.JpegImagePlugin", "PIL.Jpeg2KImagePlugin"):
        import_module(library)  # here, and not in every fork
    # C libraries may print to standard output, which must carry replies only.
    replies = os.dup(1)
    os.dup2(2, 1)
    while request := _request():
        reply = _decoded_in_fork(*request)
        _write(replies, len(reply).to_bytes(LENGTH_BYTES, "big"))
        _write(replies, reply)


def _request() -> tuple[bytes, int] | None:
    """A file and its largest number of pixels; None at the end of the input."""
    start = _read(0, 2 * LENGTH_BYTES)
    length, max_pixels = (int.from_bytes(start[i : i + LENGTH_BYTES], "big") for i in (0, LENGTH_BYTES))
    data = _read(0, length)
    return (data, max_pixels) if data and len(data) == length else None


def _decoded_in_fork(data: bytes, max_pixels: int) -> bytes:
    """The reply: a line of JSON with `mode`, `patient` and `shape`, then grey levels; or one with an `error`."""
    end, start = os.pipe()
    fork = os.fork()
    if not fork:
        _fork(start, data, max_pixels)
    os.close(start)
    reply = bytearray()
    while True:
        # During the decoding nothing is sent to this process: it hears only that its parent has ended.
        if 0 in select.select([0, end], [], [])[0]:
            os.kill(fork, signal.SIGKILL)
            sys.exit()
        part = os.read(end, 1 << 20)
        if not part:
            break
        reply += part
    os.close(end)
    status = os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])
    if not status:
        return bytes(reply)
    long = -status in _TOO_LONG
    return _failure(f"the DICOM file is damaged (its decoder {'ran for too long' if long else 'crashed'})")


def _fork(start: int, data: bytes, max_pixels: int) -> NoReturn:
    """Decode a file and write the reply to the pipe."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":  # macOS does not enforce it
            memory = _memory() + _BYTES_PER_PIXEL * max_pixels + _BYTES_PER_BYTE * len(data) + _BYTES_MORE
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        try:
            _allow(seconds(0, len(data)))
            dataset = dicom.header(data, max_pixels)
            _allow(seconds(dataset.Rows * dataset.Columns, len(data)))
            image = dicom.radiograph(dataset)
            facts = {"mode": image.mode, "patient": image.patient, "shape": image.grey.shape}
            reply = json.dumps(facts).encode() + b"\n" + image.grey.tobytes()
        except ImageError as error:
            reply = _failure(str(error))
        except MemoryError:
            reply = _failure("the DICOM file is damaged (decoding it takes too much memory)")
        _allow(0)
        _write(start, reply)
        os._exit(0)
    finally:
        os._exit(1)


def _allow(time: float) -> None:
    """Let the system end this process after so many seconds, from now on; never for 0."""
    signal.setitimer(signal.ITIMER_PROF, time)
    signal.setitimer(signal.ITIMER_REAL, ELAPSED * time)


def _memory() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _failure(message: str) -> bytes:
    return json.dumps({"error": message}).encode() + b"\n"


def _read(pipe: int, length: int) -> bytes:
    """So many bytes; fewer if the other side has closed the pipe."""
    data = bytearray()
    while len(data) < length and (part := os.read(pipe, min(1 << 20, length - len(data)))):
        data += part
    return bytes(data)


def _write(pipe: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(pipe, rest) :]
