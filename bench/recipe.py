"""What each part of the training recipe is worth: the recipe, and the recipe without each of its parts, on validation.

    python -m bench.recipe --variants recipe "no blanked images" --folds 0 1 2

Each variant trains a head and then fine-tunes, as `main` does with `data.folds=5`, once per fold: a fold changes the
order of the images, as another seed would, and the images as well, on which more depends. Its scores are those on the
validation images of the fold; the test images of the real set are compared with the others for duplicates alone.
Answers are kept in `answers/`, one file per fold and settings, so that a run goes on where another was interrupted, on
any machine. `--jobs 14` trains that many at once, on a GPU, or two on two cores. The table compares every variant with
the first, paired over patients, and is written to `recipe.csv` and `RECIPE.md` beside this file.
"""

import argparse
import copy
import hashlib
import json
import math
import multiprocessing
import os
import time
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from bench import recipe_table
from bench.common import ROOT, parser, quiet, real_data, settings
from bench.recipe_table import Answers
from bench.recipe_variants import VARIANTS
from cxr.datasets import inspection, labelled, leakage, split
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from cxr.loading.build import open_cache
from cxr.loading.changes import CHANGES, border_alone
from cxr.loading.rasters import open_rasters
from cxr.models import build, device
from cxr.models.bundle import Bundle
from cxr.settings.schema import Settings
from cxr.training.loop import Callbacks, train
from cxr.training.resuming import decisive
from cxr.training.setup import set_up

FOLDS = 5
SEEN = [*CHANGES.values(), border_alone]
BATCH = 64


def folds_of(chosen: Settings, images: int | None = None) -> list[Manifest]:
    """The real training images as `main -P folds=5` splits them, each fold in turn for validation; without the test
    images."""
    data = chosen.data
    found, _ = inspection.survey(real_data(), labelled.listing(real_data(), data).images)
    return [_fold(found, chosen, number, images) for number in range(FOLDS)]


def _fold(found: pd.DataFrame, chosen: Settings, number: int, images: int | None) -> Manifest:
    data = chosen.data
    rows = split.assign(
        found,
        names=data.class_names,
        val_size=data.val_size,
        test_size=data.test_size,
        subset_size=images,
        seed=chosen.seed,
        folds=FOLDS,
        fold=number,
        near_duplicate_bits=data.near_duplicate_bits,
    )
    rows, _ = leakage.resolve(rows, data.near_duplicate_bits)
    rows = rows[rows["split"] != "test"].reset_index(drop=True)
    return Manifest(rows[COLUMNS], real_data(), data.class_names)


def run(name: str, chosen: Settings, manifest: Manifest) -> dict[str, np.ndarray]:
    """Train a variant; returns its logits on validation under every change that is `SEEN`, (changes, n, C), and the
    minutes."""
    started = time.perf_counter()
    where = device.pick(chosen.device, chosen.precision)
    device.prepare(chosen.seed, chosen.deterministic)
    network = build.build(chosen.model, manifest.classes, seed=chosen.seed)

    def show(record) -> None:
        which = " (averaged)" if record.averaged else ""
        print(
            f"  {name}: epoch {record.epoch}, training {record.train_loss:.4f}, validation {record.val_loss:.4f} "
            f"{record.val_metric:.4f}{which}, {record.images_per_second:.0f} images/s",
            flush=True,
        )

    for section, unfreeze in (("train", 0), ("finetune", chosen.finetune.unfreeze)):
        training = set_up(
            network,
            manifest,
            getattr(chosen, section),
            unfreeze=unfreeze,
            device=where,
            seed=chosen.seed,
            cache=chosen.cache,
            callbacks=Callbacks(on_epoch=show if section == "finetune" else lambda record: None),
        )
        result = train(training)
        print(f"  {name}: {section} {result.best}", flush=True)
    minutes = (time.perf_counter() - started) / 60
    # Half precision is exact to 0.002 here, and half as large to keep.
    return {"logits": answers(network, chosen, manifest).astype(np.float16), "minutes": np.array(minutes)}


def answers(network: build.Network, chosen: Settings, manifest: Manifest) -> np.ndarray:
    """Logits on validation under every change that is `SEEN`, (changes, n, C)."""
    predictor = Predictor(Bundle(copy.deepcopy(network)), str(device.pick(chosen.device).device))
    dataset = open_rasters(manifest.split("val"), network.spec, open_cache(chosen.cache))
    rasters = dataset.rasters(np.arange(len(dataset)))
    rows = []
    for change in SEEN:
        changed = np.stack([change(raster) for raster in rasters])
        rows.append([predictor.logits(changed[i : i + BATCH]) for i in range(0, len(changed), BATCH)])
    return np.stack([np.concatenate(row) for row in rows])


def path_of(folder: Path, name: str, manifest: Manifest) -> Path:
    """The answers of a variant to a fold, by its settings: one whose settings change is trained anew, and one that gets
    another name is not."""
    return folder / manifest.digest[:12] / f"{digest(name)}.npz"


@cache
def digest(name: str) -> str:
    """What stands for the settings of a variant that decide its answers."""
    chosen = settings(VARIANTS[name], profile="cpu")
    decide = [chosen.seed, chosen.model.model_dump(), chosen.cache.views]
    decide += [decisive(chosen.train), decisive(chosen.finetune)]
    return hashlib.sha256(json.dumps(decide, sort_keys=True, default=str).encode()).hexdigest()[:12]


def kept_of(given: argparse.Namespace, manifests: list[Manifest], name: str) -> Answers:
    """What is kept of a variant, by fold."""
    files = {fold: path_of(given.folder, name, manifests[fold]) for fold in given.folds}
    return {fold: np.load(file) for fold, file in files.items() if file.is_file()}


def main() -> None:
    """Train what is missing and print the table."""
    made = parser(__doc__)
    made.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    made.add_argument("--folds", nargs="+", type=int, default=[0, 1, 2], choices=range(FOLDS))
    made.add_argument("--folder", type=Path, default=ROOT / "bench/answers", help="folder of the answers")
    made.add_argument("--out", type=Path, default=ROOT / "bench", help="folder of the tables")
    made.add_argument("--images", type=int, help="images in all; default: every one")
    made.add_argument("--jobs", type=int, default=1, help="trainings at once, each a process: for a GPU")
    made.add_argument("--minutes", type=float, default=math.inf, help="time after which no further training begins")
    given = made.parse_args()
    quiet()
    manifests = folds_of(settings({}, profile="cpu"), given.images)
    if given.jobs > 1:
        train_together(given, manifests)
    else:
        train_missing(given, manifests)
    answered = {name: kept for name in given.variants if (kept := kept_of(given, manifests, name))}
    samples = [Sample.of(manifest.split("val"), fold) for fold, manifest in enumerate(manifests)]
    found = recipe_table.table(answered, samples)
    print(found.to_string(index=False, float_format="%.4f"))
    recipe_table.write(found, len(manifests[0].rows), given.out)
    if given.json:
        given.json.write_text(json.dumps(found.to_dict("records"), indent=2) + "\n")


def train_together(given: argparse.Namespace, manifests: list[Manifest]) -> None:
    """Train in `given.jobs` processes, each on its own cores: where two share one, their threads spin in vain.

    Raises:
        SystemExit: If a process failed. What the others trained is kept.
    """
    cores = sorted(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=train_missing, args=(given, manifests)) for _ in range(given.jobs)]
    for number, process in enumerate(processes):
        # Before the start, since torch counts its threads when it is imported.
        os.sched_setaffinity(0, cores[number :: given.jobs] or cores)
        process.start()
    os.sched_setaffinity(0, cores)
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise SystemExit("a training failed; see above")


def train_missing(given: argparse.Namespace, manifests: list[Manifest]) -> None:
    """Train every variant and fold whose answers are not there yet, and that no other process trains."""
    quiet()
    started = time.monotonic()
    for name, fold in product(given.variants, given.folds):
        file = path_of(given.folder, name, manifests[fold])
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_suffix(".lock"))
        if time.monotonic() - started > 60 * given.minutes or file.is_file():
            continue
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        with lock:
            if file.is_file():
                continue
            chosen = settings({"device": given.device, **VARIANTS[name]}, profile="cpu")
            np.savez_compressed(file.with_suffix(".tmp.npz"), **run(f"{name}, fold {fold}", chosen, manifests[fold]))
            file.with_suffix(".tmp.npz").rename(file)
            torch.use_deterministic_algorithms(False)


if __name__ == "__main__":
    main()
