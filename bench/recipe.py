"""What each part of the training recipe is worth: the recipe, and the recipe without each of its parts, on validation.

    python -m bench.recipe --variants recipe "mix-up" --seeds 0 1 2 --images 2000

Each variant trains a head and then fine-tunes, as `main` does, on the training images of the real set alone; its test
images are never read. Answers on validation are kept in `answers/`, one file per settings and seed, so that a run goes
on where another was interrupted, on any machine. `--jobs 14` trains that many at once, on a GPU, or two on two cores.
The table compares every variant with the one that its name begins with, or else with the first, paired over patients,
and is written to `recipe.csv` and `RECIPE.md` beside this file.
"""

import argparse
import copy
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from functools import cache, reduce
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from bench.common import ROOT, machine, parser, quiet, real_data, settings
from bench.recipe_variants import VARIANTS
from cxr.common.files import sha256_of
from cxr.datasets import layouts, split
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.evaluation import bootstrap, scores
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from cxr.loading.build import open_cache
from cxr.loading.changes import CHANGES, border_alone
from cxr.loading.rasters import open_rasters
from cxr.models import build, device
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import softmax
from cxr.settings.classes import CLASS_NAMES
from cxr.settings.schema import Settings
from cxr.training.loop import Callbacks, train
from cxr.training.resuming import decisive
from cxr.training.setup import set_up

EXPLAINED = """Scores on validation, means over seeds; `python -m bench.recipe`. Robust: the mean over the rows of the
robustness table; worst: the lowest of them. Border AUC: for pneumonia, of images whose inside is black; 0.5 is chance.
Differences are to the variant that the name begins with, or else to the first one, over the seeds that both have; with
95 % intervals paired over patients. Where no epoch was better than the start, a row has the scores of the head alone.
Minutes are those of training alone, beside the other trainings of `--jobs` and whatever else ran."""
SEEN = [*CHANGES.values(), border_alone]
SHOWN = ("macro_f1", "auc_pneumonia", "specificity", "loss")
BATCH = 64


def training_images(share: float, seed: int, images: int | None = None) -> Manifest:
    """The real training images, a `share` of them for validation; the official test images are left out."""
    root = real_data()
    found = pd.DataFrame([vars(item) for item in layouts.scan(root)])
    found = found[found["official_split"] == "train"].assign(official_split="train")
    found["patient"] = "train/" + found["patient"]
    rows = split.assign(found, names=CLASS_NAMES[3], val_size=share, test_size=0.01, subset_size=images, seed=seed)
    rows = rows[rows["split"] != "test"]
    rows = rows.assign(sha256=[sha256_of(root / path) for path in rows["path"]], width=0, height=0, mode="")
    return Manifest(rows[COLUMNS].reset_index(drop=True), root, CLASS_NAMES[3])


def run(name: str, chosen: Settings, manifest: Manifest, seed: int) -> dict[str, np.ndarray]:
    """Train a variant; returns its logits on validation under every change that is `SEEN`, (changes, n, C), and the
    minutes."""
    started = time.perf_counter()
    where = device.pick(chosen.device, chosen.precision)
    device.prepare(seed, chosen.deterministic)
    network = build.build(chosen.model, manifest.classes, seed=seed)

    def show(record) -> None:
        which = " (averaged)" if record.averaged else ""
        print(
            f"  {name}, seed {seed}: epoch {record.epoch}, training {record.train_loss:.4f}, validation "
            f"{record.val_loss:.4f} {record.val_metric:.4f}{which}, {record.images_per_second:.0f} images/s",
            flush=True,
        )

    for section, unfreeze in (("train", 0), ("finetune", chosen.finetune.unfreeze)):
        training = set_up(
            network,
            manifest,
            getattr(chosen, section),
            unfreeze=unfreeze,
            device=where,
            seed=seed,
            cache=chosen.cache,
            callbacks=Callbacks(on_epoch=show if section == "finetune" else lambda record: None),
        )
        result = train(training)
        print(f"  {name}, seed {seed}: {section} {result.best}", flush=True)
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


def values(sample: Sample, logits: np.ndarray) -> dict[str, np.ndarray]:
    """Scores and their resamples: unchanged, in the mean over all changes, at the worst of them, and by the border."""
    *tables, border = [scores.resampled(sample, softmax(changed)) for changed in logits]
    found = {name: tables[0][name] for name in SHOWN}
    every = np.stack([table["macro_f1"] for table in tables])
    found |= {"robust macro_f1": every.mean(0), "worst macro_f1": every.min(0)}
    found["worst specificity"] = np.stack([table["specificity"] for table in tables]).min(0)
    return found | {"border auc": border["auc_pneumonia"]}


def table(folder: Path, names: list[str], seeds: list[int], sample: Sample) -> pd.DataFrame:
    """One row per variant: means over its seeds, and the difference to another variant with its interval. Then one for
    the mean of the logits of the first variant's seeds, and one for that of every network of the table: what an
    ensemble could reach at best."""
    trained = {name: _answers(folder, name, seeds) for name in names}
    trained = {name: kept for name, kept in trained.items() if kept}
    logits = {
        name: {seed: made["logits"].astype(np.float32) for seed, made in kept.items()} for name, kept in trained.items()
    }
    found = {name: {seed: values(sample, one) for seed, one in kept.items()} for name, kept in logits.items()}
    rows = []
    for name, scored in found.items():
        other = compared_with(name, list(found))
        minutes = np.mean([made["minutes"] for made in trained[name].values()])
        rows.append({"variant": name, "seeds": len(scored), "minutes": minutes} | _row(scored, other, found[other]))
    first = next(iter(found), "")
    everyone = [one for kept in logits.values() for one in kept.values()]
    for name, members in (
        (f"{first}: its seeds together", list(logits.get(first, {}).values())),
        ("all networks above together", everyone),
    ):
        if len(members) > 1:
            together = values(sample, np.mean(members, 0))
            rows.append(
                {"variant": name, "seeds": len(members), "minutes": math.nan}
                | _row(dict.fromkeys(seeds, together), first, found[first])
            )
    return pd.DataFrame(rows)


def compared_with(name: str, names: list[str]) -> str:
    """Which of `names` a variant is compared with: the longest that it begins with, or else the first."""
    words = name.split(", ")
    starts = [", ".join(words[:length]) for length in range(len(words) - 1, 0, -1)]
    return next((start for start in starts if start in names), names[0])


def _answers(folder: Path, name: str, seeds: list[int]) -> dict[int, Any]:
    """What is kept of a variant, by seed."""
    return {seed: np.load(file) for seed in seeds if (file := path_of(folder, name, seed)).is_file()}


def _row(
    found: dict[int, dict[str, np.ndarray]], other: str, others: dict[int, dict[str, np.ndarray]]
) -> dict[str, Any]:
    """The mean scores over seeds, and what they differ from those of the `other` variant over the seeds of both."""
    row: dict[str, Any] = {}
    for score in next(iter(found.values())):
        row[score] = float(np.mean([one[score][0] for one in found.values()]))
    row["compared with"] = other
    for score in ("macro_f1", "robust macro_f1"):
        differences = [found[seed][score] - others[seed][score] for seed in found.keys() & others.keys()]
        alone = found is others or not differences
        row[f"change of {score}"] = "" if alone else _interval(np.mean(differences, 0))
    return row


def _interval(resamples: np.ndarray) -> str:
    estimate = bootstrap.percentile(float(resamples[0]), resamples[1:])
    return f"{estimate.value:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"


def write(found: pd.DataFrame, manifest: Manifest, folder: Path) -> None:
    """Write the table as `recipe.csv` and, for readers, as `RECIPE.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    found.to_csv(folder / "recipe.csv", index=False, float_format="%.4f")
    words = {"_": " ", "macro f1": "macro-F1", "auc": "AUC"}
    titles = [reduce(lambda name, pair: name.replace(*pair), words.items(), name) for name in found.columns]
    rows = [[_cell(value) for value in row] for row in found.to_numpy()]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [titles, ["---"] * len(titles), *rows])
    images = f"{len(manifest.split('train')):,} training and {len(manifest.split('val')):,} validation images"
    text = f"# What each part of the recipe is worth\n\n{EXPLAINED}\n\n{images}. {machine()}.\n\n{table}\n"
    (folder / "RECIPE.md").write_text(text, encoding="utf-8")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def path_of(folder: Path, name: str, seed: int) -> Path:
    """The answers of a variant and seed, by its settings: one whose settings change is trained anew, and one that gets
    another name is not."""
    return folder / f"{_digest(name)}-{seed}.npz"


@cache
def _digest(name: str) -> str:
    """What stands for the settings of a variant that decide its answers."""
    chosen = settings(VARIANTS[name], profile="cpu")
    sections = [chosen.model.model_dump(), chosen.cache.views, decisive(chosen.train), decisive(chosen.finetune)]
    return hashlib.sha256(json.dumps(sections, sort_keys=True, default=str).encode()).hexdigest()[:12]


def main() -> None:
    """Train what is missing and print the table."""
    made = parser(__doc__)
    made.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    made.add_argument("--folder", type=Path, default=ROOT / "bench/answers", help="folder of the answers")
    made.add_argument("--out", type=Path, default=ROOT / "bench", help="folder of the tables")
    made.add_argument("--images", type=int, help="images in all; default: every one")
    made.add_argument("--share", type=float, default=0.2, help="share of the images for validation")
    made.add_argument("--jobs", type=int, default=1, help="trainings at once, each a process: for a GPU")
    made.add_argument("--minutes", type=float, default=math.inf, help="time after which no further training begins")
    given = made.parse_args()
    quiet()
    manifest = training_images(given.share, 0, given.images)
    kept = given.folder / manifest.digest[:12]  # answers to other images are not compared with these
    kept.mkdir(parents=True, exist_ok=True)
    if given.jobs > 1:
        train_together(given.jobs)
    else:
        train_missing(given, manifest, kept)
    found = table(kept, given.variants, given.seeds, Sample.of(manifest.split("val"), 0))
    print(found.to_string(index=False, float_format="%.4f"))
    write(found, manifest, given.out)
    if given.json:
        given.json.write_text(json.dumps(found.to_dict("records"), indent=2) + "\n")


def train_together(jobs: int) -> None:
    """Run this command in `jobs` processes, each on its own cores: where two share one, their threads spin in vain."""
    cores = sorted(os.sched_getaffinity(0))
    words = [sys.executable, "-m", "bench.recipe", *sys.argv[1:], "--jobs", "1"]
    processes = [subprocess.Popen(words) for _ in range(jobs)]
    for number, process in enumerate(processes):
        os.sched_setaffinity(process.pid, cores[number::jobs] or cores)
    for process in processes:
        process.wait()


def train_missing(given: argparse.Namespace, manifest: Manifest, kept: Path) -> None:
    """Train every variant and seed whose answers are not there yet, and that no other process trains."""
    started = time.monotonic()
    for name, seed in product(given.variants, given.seeds):
        file = path_of(kept, name, seed)
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
            np.savez_compressed(file.with_suffix(".tmp.npz"), **run(name, chosen, manifest, seed))
            file.with_suffix(".tmp.npz").rename(file)
            torch.use_deterministic_algorithms(False)


if __name__ == "__main__":
    main()
