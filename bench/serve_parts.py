"""What `bench.serve` holds the server against: the parts of an answer that no server can do without, and the server as
it was at an earlier commit.
"""

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np

from bench.common import ROOT, real_data
from cxr.common.hardware import cores
from cxr.serving.service import Service

# Run in the earlier checkout, with its own code: the same network, saved as that commit would save it.
_SAVE = """
import sys, warnings
from pathlib import Path
from bench import serve
from bench.common import real_images, settings
from cxr.models.build import build
from cxr.models.bundle import Bundle

warnings.simplefilter("ignore")
folder, name, size = sys.argv[1:]
manifest = real_images(60, 20)
wanted = settings({"model.name": name, "model.weights": "none", "model.input_size": size})
serve.save_ours(Path(folder), Bundle(build(wanted.model, manifest.classes, seed=0)), manifest)
"""


def bare(service: Service, batch: int, rounds: int) -> float:
    """Median milliseconds of the network alone on rasters in memory."""
    size = service.spec.size
    rasters = np.random.default_rng(0).integers(0, 256, (batch, size, size), dtype=np.uint8)
    return _median(lambda _: service.session.run(rasters), rounds)


def floor(service: Service, files: list[bytes], batch: int, rounds: int) -> float:
    """Median milliseconds of decoding and the network: what no server can be faster than.

    One picture is decoded in this thread, several on all cores; the network has all cores afterwards.
    """
    with ThreadPoolExecutor(cores()) as pool:

        def answer(number: int) -> object:
            if batch == 1:
                rasters = [service.reader.read(files[number % len(files)]).raster]
            else:
                chosen = [files[i % len(files)] for i in range(batch)]
                rasters = [image.raster for image in pool.map(service.reader.read, chosen)]
            return service.session.run(np.stack(rasters))

        return _median(answer, rounds)


def _median(work: Callable[[int], object], rounds: int) -> float:
    times = []
    for number in range(rounds + 2):
        started = time.perf_counter()
        work(number)
        times.append(1000 * (time.perf_counter() - started))
    return median(times[2:])  # the first calls prepare for their shape


def save_before(revision: str, folder: Path, model: str, size: int) -> Path:
    """The model as the code of an earlier commit saves and serves it."""
    checkout = folder / "checkout"
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        sys.exit(f"--before {revision}: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(checkout, filter="data")
    environment = {**os.environ, "CXR_DATA": str(real_data().resolve())}
    words = [sys.executable, "-c", _SAVE, str(folder), model, str(size)]
    subprocess.run(words, cwd=checkout, env=environment, check=True)
    return folder / "ours"
