"""Time and peak memory of `validate` as the set grows: `python -m bench.validate --sizes 1000 10000 50000`.

Validates the champion of the store that MLFLOW_TRACKING_URI names. Each size is one `validate` in a process of its own,
on images drawn for it: a few phantoms with noise of their own, so that no two files are alike.
"""

import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bench.common import ROOT, parser, report

_BODIES = 40  # phantoms that all images are made from
_NOISE = 6.0  # grey levels
_MB = 1024  # kilobytes, the unit of ru_maxrss on Linux


def draw(folder: Path, count: int, side: int) -> None:
    """Write `count` labelled images of `side` x `side` pixels, a third of them normal."""
    from cxr.datasets import phantom

    rng, bodies = np.random.default_rng(0), {}
    for label in ("normal", "bacteria"):
        (folder / ("NORMAL" if label == "normal" else "PNEUMONIA")).mkdir(parents=True)
        drawn = [Image.open(io.BytesIO(phantom.example(label, seed))).resize((side, side)) for seed in range(_BODIES)]
        bodies[label] = [np.asarray(image, np.float32) for image in drawn]
    for number in range(count):
        label = "normal" if number % 3 == 0 else "bacteria"
        grey = bodies[label][number % _BODIES] + _NOISE * rng.standard_normal((side, side), dtype=np.float32)
        target = folder / ("NORMAL" if label == "normal" else "PNEUMONIA") / f"site-{number:06}.png"
        Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(target, compress_level=1)


def validate(folder: Path, model_uri: str) -> dict[str, float]:
    """Seconds of one `validate` on the images of a folder, and peak memory of the largest of its processes."""
    words = ["--data_path", str(folder), "--data.classes", "2", "--log_dir", str(folder.parent / "logs")]
    words += ["--model_uri", model_uri] if model_uri else []
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "steps.validate", *words], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / _MB}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 50_000], help="numbers of images, rising")
    made.add_argument("--side", type=int, default=224, help="side of the images, pixels")
    made.add_argument("--model_uri", default="", help="models:/NAME@ALIAS or models:/NAME/VERSION; default: champion")
    given = made.parse_args()
    if "MLFLOW_TRACKING_URI" not in os.environ:
        sys.exit("name a store with a registered model in MLFLOW_TRACKING_URI")
    found = {}
    for count in sorted(given.sizes):  # rising: the peak of the children is the largest so far
        with tempfile.TemporaryDirectory(prefix="cxr-bench-") as place:
            draw(Path(place) / "set", count, given.side)
            found[count] = validate(Path(place) / "set", given.model_uri)
    rows = [
        (f"{count:,} images", "{:.0f} s, {:.1f} ms an image, peak memory {:,.0f} MB".format(
            at["seconds"], 1000 * at["seconds"] / count, at["peak_mb"]))
        for count, at in found.items()
    ]  # fmt: skip
    report(given, f"validate on images of {given.side} x {given.side} pixels", rows, {"sizes": found})


if __name__ == "__main__":
    main()
