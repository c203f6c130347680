"""A split of a million images after they were decoded: `python -m bench.million`.

Each size runs in a process of its own, on a table as the survey would make it: no image files. There are 2.5 images of
a patient in the mean, half of the patients have pseudonyms, and of 200 images one is an exact copy and one a near one.

Hashes and thumbnails are drawn evenly. Those of X-rays look alike: of the 5,216 real ones, one pair in 9,000 has near
hashes, and its thumbnails are compared. Such pairs grow with the square of the number of images; how many are compared
in a second is measured by itself.
"""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.common import apart, parser, peak, quiet, report

CLASSES = ("normal", "bacteria", "virus")
BITS = 6
_THUMBNAIL = 1024  # bytes


def table(count: int, seed: int = 0) -> pd.DataFrame:
    """What `inspection.survey` could say of `count` images."""
    rng = np.random.default_rng(seed)
    patient = np.sort(rng.integers(0, max(1, int(count / 2.5)), count))
    number = np.arange(count) - np.searchsorted(patient, patient)
    kind = rng.choice(3, patient.max() + 1, p=[0.4, 0.35, 0.25])[patient]
    paths = [f"images_{i % 12:03}/{p:08}_{i:03}.png" for p, i in zip(patient, number, strict=True)]
    names = [f"dicom/{p:032x}" if p % 2 else f"all/person{p}" for p in patient.tolist()]
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    pixels = _words(rng, count)
    thumbnails: list[bytes] = []
    for start in range(0, count, 1 << 16):
        drawn = rng.integers(0, 256, (min(1 << 16, count - start), _THUMBNAIL), dtype=np.uint8)
        thumbnails += map(bytes, drawn)
    copies, originals = rng.choice(count, (2, count // 200 * 2), replace=False)
    for place, (copy, original) in enumerate(zip(copies.tolist(), originals.tolist(), strict=True)):
        hashes[copy], thumbnails[copy] = hashes[original], thumbnails[original]
        if place % 2:
            hashes[copy] ^= np.uint64(1) << np.uint64(place % 64)
        else:
            pixels[copy] = pixels[original]
    return pd.DataFrame(
        {
            "path": paths,
            "label": [CLASSES[k] for k in kind],
            "patient": names,
            "official_split": None,
            "sha256": _words(rng, count),
            "width": rng.integers(900, 3000, count),
            "height": rng.integers(900, 3000, count),
            "mode": "L",
            "pixel_hash": pixels,
            "phash": hashes,
            "thumbnail": thumbnails,
            "mean_grey": rng.normal(128, 20, count),
        }
    )


def _words(rng: np.random.Generator, count: int) -> list[str]:
    text = rng.bytes(32 * count).hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def parts(count: int) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of everything that `prepare_split` does after the survey, by part."""
    from mlflow.data.pandas_dataset import from_pandas

    from cxr.datasets import figures, leakage, overlap, split
    from cxr.datasets.manifest import COLUMNS, Manifest

    found: dict[str, dict[str, float]] = {}
    warnings.simplefilter("ignore")  # hints on integer columns, meant for model signatures
    figures._tile = lambda path: np.zeros((figures._TILE + 4, figures._TILE + 4), np.uint8)  # there are no files

    def run(name: str, work: Callable[[], Any]) -> Any:
        _forget_peak()
        started = time.perf_counter()
        result = work()
        found[name] = {"seconds": time.perf_counter() - started, "peak_bytes": _peak_since()}
        return result

    run("before the table: imports", lambda: None)
    rows = run("the table itself", lambda: table(count))
    given = {"names": CLASSES, "val_size": 0.2, "test_size": 0.15, "subset_size": None, "seed": 42}
    rows = run("split by patient", lambda: split.assign(rows, **given))
    run("groups of related images, for folds", lambda: leakage.related(rows, BITS))
    rows, _ = run("leakage checks", lambda: leakage.resolve(rows, BITS))
    manifest = Manifest(rows[COLUMNS], Path("/data"), CLASSES)
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
        run("manifest, written", lambda: manifest.save(folder))
        run("manifest, read", lambda: Manifest.load(folder))
        run("fingerprints, written", lambda: overlap.save(overlap.fingerprints(rows), Path(folder)))
        run("counts", manifest.counts)
        run("figures", lambda: _draw(figures.figures(manifest, rows, 0), Path(folder)))
        run("dataset of the MLflow run", lambda: from_pandas(manifest.rows, targets="label", digest="0").to_dict())
    return found


def _draw(made: dict[str, Any], folder: Path) -> None:
    for name, figure in made.items():
        figure.savefig(folder / name)


def near(count: int) -> dict[str, float]:
    """Seconds and peak memory of the search for near hashes alone."""
    from cxr.datasets.near_hashes import near_pairs

    hashes = np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)
    hashes[count // 2 :: 200] = hashes[: len(hashes[count // 2 :: 200])] ^ np.uint64(5)
    before, started = peak(), time.perf_counter()
    pairs = sum(len(first) for first, _ in near_pairs(hashes, BITS))
    return {"seconds": time.perf_counter() - started, "peak_bytes": peak(), "before_bytes": before, "pairs": pairs}


def pairs_a_second(count: int) -> dict[str, float]:
    """How many pairs of thumbnails are compared in a second."""
    from cxr.datasets import leakage

    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (4096, _THUMBNAIL), dtype=np.uint8)
    alike = pd.DataFrame({"pixel_hash": np.arange(4096), "phash": np.uint64(0), "thumbnail": list(map(bytes, rows))})
    alike = alike.iloc[: max(2, int((2 * count) ** 0.5))]  # so many that they form `count` pairs
    started = time.perf_counter()
    leakage.find_duplicates(alike, BITS)
    return {"pairs": len(alike) * (len(alike) - 1) / 2 / (time.perf_counter() - started), "peak_bytes": peak()}


def _forget_peak() -> None:
    """Let Linux measure the peak of memory anew; elsewhere it is that of the whole process."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_since() -> int:
    if sys.platform != "linux":
        return peak()
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    made.add_argument("--pairs", type=int, default=1_000_000, help="pairs of thumbnails to compare")
    made.add_argument("--only", choices=("parts", "near", "pairs"), help="measure one size in this process")
    given = made.parse_args()
    if given.only:
        quiet()
        measure: Callable[[int], Any] = {"parts": parts, "near": near, "pairs": pairs_a_second}[given.only]
        print(json.dumps(measure(given.sizes[0])))
        return
    found, alone, compared = (
        {count: apart("bench.million", "--only", only, "--sizes", str(count)) for count in counts}
        for only, counts in (("parts", given.sizes), ("near", given.sizes), ("pairs", [given.pairs]))
    )

    def line(by_size: dict[int, dict[str, float]]) -> str:
        return "; ".join(f"{n:,}: {v['seconds']:.1f} s, {v['peak_bytes'] / 1e9:.2f} GB" for n, v in by_size.items())

    rows = [(name, line({n: found[n][name] for n in given.sizes})) for name in found[given.sizes[0]]]
    totals = {n: sum(part["seconds"] for part in found[n].values()) for n in given.sizes}
    rows += [("all of these", "; ".join(f"{n:,}: {s:.1f} s, {1e6 * s / n:.0f} us an image" for n, s in totals.items())),
             (f"near hashes alone, {BITS} bits", line(alone)),
             ("before them", f"{max(v['before_bytes'] for v in alone.values()) / 1e9:.2f} GB"),
             ("pairs of thumbnails compared", f"{compared[given.pairs]['pairs']:,.0f} a second")]  # fmt: skip
    report(given, "A split of a million images, after decoding", rows,
           {"parts": {str(n): v for n, v in found.items()}, "near": {str(n): v for n, v in alone.items()},
            "pairs_a_second": compared[given.pairs]["pairs"]})  # fmt: skip


if __name__ == "__main__":
    main()
