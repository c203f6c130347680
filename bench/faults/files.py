"""Hostile and damaged pictures: each is answered or refused in one line, in time, within bounds of memory.

Reads the test files of pydicom, every file below the folders in the environment variable CXR_FILES (such as
`Tests/images` of Pillow's source package), files made in every variant that is read, and `--count` mutations of small
ones among all these. Each file goes the way of a request: decoded, then turned into a raster. What fails is kept.

    CXR_FILES=pillow/Tests/images python -m bench.faults.files --seed 1
"""

import io
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import psutil
import pydicom
from PIL import Image, ImageOps

from bench.faults.common import Case, Table, arguments
from bench.faults.files_made import made, mutated
from cxr.errors import CxrError, ImageError
from cxr.imaging import dicom
from cxr.imaging.decode import decode_image
from cxr.imaging.preprocess import InputSpec
from tests.cxr.imaging.test_cost import HOSTILE

SECONDS, MEGABYTES = 5.0, 500  # that a file may take
MAX_PIXELS = 50_000_000  # as a served model accepts
SMALL = 40_000  # bytes of a file that is mutated
LINE = 500  # characters of a refusal
KEPT = Path(tempfile.gettempdir(), "cxr-faults-files")
ROOT = Path(__file__).resolve().parents[2]
SPEC = InputSpec(size=224, resize=256)
SAMPLE_S = 0.05  # between two looks at the memory of a file that takes long
MAGIC = {b"\xff\xd8": "JPEG", b"\x89P": "PNG", b"II": "TIFF", b"MM": "TIFF", b"BM": "BMP"}


class Reader:
    """A process that reads files, replaced when it crashes or hangs."""

    def __init__(self):
        self._process: multiprocessing.process.BaseProcess | None = None

    def judge(self, data: bytes) -> tuple[str, str]:
        """How reading ended, "read", "refused" or "failed", and a line about it."""
        connection = self._connection()
        connection.send_bytes(data)
        start, peak, ended = time.monotonic(), 0.0, False
        try:
            while not (ended := connection.poll(SAMPLE_S)) and time.monotonic() - start < SECONDS:
                peak = max(peak, self._megabytes())
            if not ended:
                self.close()
                return "failed", f"no answer in {SECONDS:g} s"
            outcome, line = connection.recv()
        except EOFError:
            self.close()
            return "failed", "the process crashed"
        if peak > self._before + MEGABYTES:
            return "failed", f"{peak - self._before:,.0f} MB of memory"
        return outcome, line

    def close(self) -> None:
        """End the process and those that it started."""
        if self._process is not None:
            children = psutil.Process(self._process.pid).children(recursive=True) if self._process.is_alive() else []
            self._process.kill()
            for child in children:
                child.send_signal(signal.SIGKILL)
            self._process.join()
        self._process = None

    def _connection(self) -> Connection:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._ours, theirs = context.Pipe()
            self._process = context.Process(target=_read_all, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            self._ours.recv()  # it is ready
            self._before = self._megabytes()
        return self._ours

    def _megabytes(self) -> float:
        """Memory of the process and all below it; that of a fork it has in common with its parent counts once."""
        total = 0
        process = psutil.Process(self._process.pid if self._process else None)
        for each in [process, *process.children(recursive=True)]:
            try:
                total += each.memory_full_info().uss
            except psutil.Error:  # it has just ended
                continue
        return total / 1e6


def _read_all(connection: Connection) -> None:
    """Judge files from the connection, until it is closed."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff reports there
    for _, _, data in made(np.random.default_rng(0)):
        _judged(data)  # so that all libraries are loaded before memory is measured
    connection.send(None)
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:
            return
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak of memory is that from now on
        before, start = _kilobytes("VmRSS"), time.monotonic()
        outcome, line = _judged(data)
        grown, took = (_kilobytes("VmHWM") - before) / 1e3, time.monotonic() - start
        if outcome != "failed" and (grown > MEGABYTES or took > SECONDS):
            outcome, line = "failed", f"{grown:,.0f} MB of memory, {took:.1f} s ({outcome}: {line})"
        connection.send((outcome, line))


def _kilobytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _judged(data: bytes) -> tuple[str, str]:
    try:
        image = decode_image(data, MAX_PIXELS, SPEC)
        raster = SPEC.to_raster(image.grey, image.extent)
    except ImageError as error:
        return _refusal(str(error))
    except CxrError as error:
        return "failed", f"refused for another reason than the file: {error}"
    except BaseException as error:  # whatever else is a fault
        return "failed", f"{type(error).__name__}: {error}"
    if image.grey.dtype != np.uint8 or image.grey.ndim != 2 or not 0 <= image.colour <= 1:
        return "failed", f"{image.grey.dtype} of shape {image.grey.shape}, colour {image.colour}"
    if raster.dtype != np.uint8 or raster.shape != (SPEC.size, SPEC.size):
        return "failed", f"raster {raster.dtype} of shape {raster.shape}"
    if image.mode in ("L", "RGB") and image.scale == 1 and not dicom.is_dicom(data):
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("L"))
        if not np.array_equal(image.grey, expected):
            return "failed", "grey levels differ from Pillow's"
        return "read as Pillow does", image.mode
    return "read", image.mode


def _refusal(line: str) -> tuple[str, str]:
    if not line.isprintable() or not 10 < len(line) < LINE:
        return "failed", f"not one clear line: {line[:LINE]!r}"
    if any(path in line for path in (str(ROOT), sys.prefix, tempfile.gettempdir())):
        return "failed", f"names a path of ours: {line}"
    return "refused", line


def _public() -> Iterator[tuple[str, str, bytes]]:
    """Name of the suite, name of the file and bytes of files that others test with."""
    folders = [Path(pydicom.__file__).parent / "data"]
    folders += [Path(folder) for folder in os.environ.get("CXR_FILES", "").split(os.pathsep) if folder]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                suite = "pydicom" if folder == folders[0] else folder.name
                yield suite, str(path.relative_to(folder)), path.read_bytes()


def _attempt(reader: Reader, case: Case, name: str, data: bytes) -> None:
    outcome, line = reader.judge(data)
    if outcome != "failed":
        case.add(outcome)
        return
    KEPT.mkdir(exist_ok=True)
    place = KEPT / "".join(c if c.isalnum() else "-" for c in f"{case.name} {name}")[:120]
    place.write_bytes(data)
    case.fail(f"{name}: {line} (kept as {place})")


def main() -> None:
    """Read the files of others, those made, and the mutations."""
    given = arguments("Hostile and damaged pictures.", count=20_000, minutes=30)
    table, reader = Table("Pictures", given), Reader()
    small: dict[str, list[tuple[str, bytes]]] = {}
    short = given.count < 1000  # only a few of the public files
    for suite, name, data in _public():
        kind = "DICOM" if dicom.is_dicom(data) else MAGIC.get(data[:2])
        if kind and len(data) <= SMALL:
            small.setdefault(kind, []).append((name, data))
        if not short or len(data) <= SMALL:
            _attempt(reader, table.case(f"files of {suite}"), name, data)
    for kind, name, data in made(np.random.default_rng(given.seed)):
        small.setdefault(kind, []).append((name, data))
        _attempt(reader, table.case(f"made, {kind}"), name, data)
    for name, (data, _) in HOSTILE.items():
        _attempt(reader, table.case("made to be costly"), name, data)
    kinds = sorted(small)
    for number in table.attempts():
        rng = np.random.default_rng([given.seed, number])
        kind = kinds[number % len(kinds)]
        (name, data), (_, other) = (small[kind][rng.integers(len(small[kind]))] for _ in range(2))
        how, data = mutated(data, other, rng)
        _attempt(reader, table.case(f"mutated {kind}"), f"seed {given.seed}, mutation {number} ({how}) of {name}", data)
    reader.close()
    table.finish()


if __name__ == "__main__":
    main()
