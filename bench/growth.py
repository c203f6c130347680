"""Time and peak memory as the set grows: `python -m bench.growth --sizes 1000 2000 4000`.

Each size runs in a process of its own: decode and survey, then head and last two blocks of EfficientNet-Lite0 from
a cold cache. Memory alone is measured for a manifest of 50,000 rows as well.
"""

import json
import time
from functools import partial

from bench.common import apart, empty_cache, parser, peak, quiet, real_data, real_images, report, settings


def one(count: int, where: str) -> dict[str, float]:
    """Seconds (imports left out) and peak bytes for `count` images."""
    from cxr.datasets import inspection, layouts, leakage
    from cxr.models import device as devices
    from cxr.models.build import build
    from cxr.training.loop import train
    from cxr.training.setup import set_up

    quiet()
    picked = devices.pick(where)
    devices.prepare(0, deterministic=False)
    manifest = real_images(count * 4 // 5, count - count * 4 // 5)
    found = {item.path: item for item in layouts.scan(manifest.root)}
    started = time.perf_counter()
    table, _ = inspection.survey(manifest.root, [found[path] for path in manifest.rows["path"]])
    leakage.resolve(table.assign(split="train"), 6)
    del table
    with empty_cache() as folder:
        chosen = settings({"cache.dir": folder, "train.epochs": 3, "finetune.epochs": 3}, "cpu")
        network = build(chosen.model, manifest.classes, seed=0)
        for section, unfreeze in ((chosen.train, 0), (chosen.finetune, 2)):
            train(set_up(network, manifest, section, unfreeze=unfreeze, device=picked, seed=0, cache=chosen.cache))
    return {"seconds": time.perf_counter() - started, "peak_bytes": peak()}


def rows_alone(count: int) -> dict[str, float]:
    """Peak bytes with a manifest of `count` rows that was written, read, and cut into its parts; and without one."""
    import pandas as pd

    from cxr.datasets.manifest import COLUMNS, Manifest
    from cxr.loading.batches import batch_indices, class_weights

    before = peak()
    rows = pd.DataFrame(
        {
            "path": [f"train/PNEUMONIA/person{n}_virus_{n}.jpeg" for n in range(count)],
            "sha256": [f"{n:064x}" for n in range(count)],
            "label": [("normal", "bacteria", "virus")[n % 3] for n in range(count)],
            "patient": [f"train/person{n}" for n in range(count)],
            "split": [("train", "train", "train", "val", "test")[n % 5] for n in range(count)],
            "width": 1000, "height": 1000, "mode": "L",
        }
    )[COLUMNS]  # fmt: skip
    with empty_cache() as folder:
        Manifest(rows, real_data(), ("normal", "bacteria", "virus")).save(folder)
        loaded = Manifest.load(folder)
    class_weights(loaded.split("train"))
    batch_indices(len(loaded), 64, 0, 1)
    return {"peak_bytes": peak(), "before_bytes": before}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 4000])
    made.add_argument("--rows", type=int, default=50_000)
    made.add_argument("--only", choices=("images", "rows"), help="measure one size in this process")
    given = made.parse_args()
    if given.only:
        print(json.dumps(one(given.sizes[0], given.device) if given.only == "images" else rows_alone(given.rows)))
        return
    images = partial(apart, "bench.growth", "--only", "images", "--device", given.device, "--sizes")
    images("200")  # warm-up: files in memory, code compiled
    found = {n: images(str(n)) for n in given.sizes}
    alone = apart("bench.growth", "--only", "rows", "--rows", str(given.rows))
    first, last = given.sizes[0], given.sizes[-1]
    slope = (found[last]["seconds"] - found[first]["seconds"]) / (last - first)
    off = max(abs(found[n]["seconds"] / (found[first]["seconds"] + slope * (n - first)) - 1) for n in given.sizes)
    peaks = [found[n]["peak_bytes"] for n in given.sizes]
    rows = [(f"{n:,} images", f"{found[n]['seconds']:.1f} s, {1000 * found[n]['seconds'] / n:.1f} ms an image, "
             f"peak memory {found[n]['peak_bytes'] / 1e9:.2f} GB") for n in given.sizes]  # fmt: skip
    rows += [("time, largest distance from the line through the ends", f"{100 * off:.1f} %"),
             ("time per image, largest over smallest set",
              f"{found[last]['seconds'] / last / (found[first]['seconds'] / first):.3f}"),
             ("peak memory, largest over smallest", f"{max(peaks) / min(peaks):.3f}"),
             (f"{given.rows:,} manifest rows", f"peak memory {alone['peak_bytes'] / 1e9:.2f} GB, "
              f"{alone['before_bytes'] / 1e9:.2f} GB before them")]  # fmt: skip
    report(given, "Time and memory as the set grows", rows,
           {"sizes": {str(n): v for n, v in found.items()}, "off_linear": off, "memory_ratio": max(peaks) / min(peaks),
            "ratio": found[last]["seconds"] / last / (found[first]["seconds"] / first), "rows": alone})  # fmt: skip


if __name__ == "__main__":
    main()
