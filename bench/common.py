"""What the benches share: real images as a manifest, the machine in words, a table on the screen and in RESULTS.md."""

import argparse
import datetime
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cxr.common.files import sha256_of
from cxr.common.hardware import cores
from cxr.datasets import layouts, split
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.models import device
from cxr.settings import load
from cxr.settings.classes import CLASS_NAMES
from cxr.settings.schema import Settings

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/RESULTS.md"


def parser(about: str) -> argparse.ArgumentParser:
    """A command line with what every bench takes."""
    made = argparse.ArgumentParser(description=about)
    made.add_argument("--json", type=Path, help="file to write the figures to")
    made.add_argument("--device", default="auto", help="auto | cpu | cuda | mps")
    made.add_argument("--note", default="", help="words for the heading in RESULTS.md")
    return made


def real_data() -> Path:
    """The folder of real X-rays: CXR_DATA, or the one beside the checkout."""
    folder = Path(os.environ.get("CXR_DATA") or ROOT.parent / "shared/data/chest_xray_224")
    if not folder.is_dir():
        sys.exit(f"no real X-rays at {folder}; name their folder in CXR_DATA")
    return folder


def real_images(train: int, val: int, seed: int = 0) -> Manifest:
    """A manifest of `train` + `val` real images, split by patient, class shares kept."""
    root = real_data()
    found = pd.DataFrame([vars(item) for item in layouts.scan(root)])
    found["patient"] = found["official_split"].fillna("all") + "/" + found["patient"]
    share = val / (train + val)
    rows = split.assign(found, names=CLASS_NAMES[3], val_size=share, test_size=0.15, subset_size=None, seed=seed)
    chosen = pd.concat([_stratified(rows[rows["split"] == name], count) for name, count in
                        (("train", train), ("val", val))])  # fmt: skip
    chosen["sha256"] = [sha256_of(root / path) for path in chosen["path"]]
    chosen = chosen.assign(width=0, height=0, mode="")
    return Manifest(chosen[COLUMNS].reset_index(drop=True), root, CLASS_NAMES[3])


def _stratified(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows with the class shares of all, spread over the whole table."""
    if count > len(rows):
        sys.exit(f"{count} images of one split are asked for, the real set has {len(rows)}")
    shuffled = rows.sample(frac=1, random_state=0)
    place = shuffled.groupby("label").cumcount() / shuffled["label"].map(shuffled["label"].value_counts())
    return shuffled.iloc[place.argsort(kind="stable").to_numpy()[:count]]


def settings(overrides: dict[str, object], profile: str = "") -> Settings:
    """The shipped settings with some of them replaced."""
    return load.load_settings(ROOT / "params.yaml", profile, {key: str(value) for key, value in overrides.items()})


@contextmanager
def empty_cache() -> Iterator[str]:
    """A folder for a disk cache that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
        yield folder


def quiet() -> None:
    """Leave the screen to the table."""
    logging.disable(logging.WARNING)


def machine(where: str = "auto") -> str:
    """Processor or GPU, cores, and the versions that matter."""
    picked = device.pick(where)
    name = str(picked).split(",")[0] if picked.device.type == "cuda" else _processor()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy", "pillow"))
    return f"{name}, {cores()} cores; Python {platform.python_version()}, {versions}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def report(arguments: argparse.Namespace, title: str, rows: list[tuple[str, str]], figures: dict) -> None:
    """Print a table, append it to RESULTS.md, and write the figures as JSON."""
    wide = max(len(name) for name, _ in rows)
    print(f"\n{title}\n" + "\n".join(f"  {name:<{wide}}  {value}" for name, value in rows))
    where = machine(arguments.device)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    command = f"python -m {Path(sys.argv[0]).parent.name}.{Path(sys.argv[0]).stem} {' '.join(sys.argv[1:])}".strip()
    lines = [f"\n## {title}\n", f"{today}. {where}.{f' {arguments.note}' if arguments.note else ''}\n",
             f"`{command}`\n", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]  # fmt: skip
    if not RESULTS.exists():
        lines.insert(
            0, "# Bench results\n\nWhat each bench printed, the newest last. Ratios are of runs side by side.\n"
        )
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": where, **figures}, indent=2) + "\n")


def synchronise(where: torch.device) -> None:
    """Wait for the device, so that a clock tells the truth."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def apart(module: str, *words: str) -> Any:
    """What a bench prints as JSON in its last line, in a process of its own."""
    words = (sys.executable, "-m", module, *words)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def peak() -> int:
    """Bytes of memory that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
