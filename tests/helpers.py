"""What several tests need: settings by way of params.yaml, and a small set of pictures with its manifest."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr import config
from cxr.files import sha256_of
from cxr.manifest import COLUMNS, Manifest
from cxr.model import Network, build
from cxr.schema import Settings

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("normal", "bacteria", "virus")


def network(name: str = "efficientnet_lite0", *, seed: int = 0, size: int = 64, **model: object) -> Network:
    """A network with a random head: ImageNet weights for EfficientNet-Lite0, random ones for all others."""
    weights = "imagenet" if name == "efficientnet_lite0" else "none"
    keys = {"name": name, "weights": weights, "input_size": size, **model}
    return build(settings_with({f"model.{k}": v for k, v in keys.items()}).model, CLASSES, seed=seed)


def settings_with(overrides: dict[str, object], profile: str = "") -> Settings:
    """The shipped settings with some of them replaced, as a command line would."""
    return config.load(ROOT / "params.yaml", profile, {key: str(value) for key, value in overrides.items()})


def small_set(folder: Path, per_class: int = 12, side: int = 48) -> Manifest:
    """A manifest of pictures that a network can tell apart: brightness goes with the class. One picture a patient."""
    rng = np.random.default_rng(0)
    rows = []
    for index, label in enumerate(CLASSES):
        for number in range(per_class):
            grey = np.clip(60 + 60 * index + 30 * rng.standard_normal((side, side)), 0, 255).astype(np.uint8)
            file = folder / f"{label}-{number}.png"
            Image.fromarray(grey).save(file)
            split = "val" if number % 4 == 0 else "test" if number % 4 == 1 else "train"
            rows.append([file.name, sha256_of(file), label, f"train/{label}{number}", split, side, side, "L"])
    return Manifest(pd.DataFrame(rows, columns=COLUMNS), folder, CLASSES, {"kind": "folder"})
