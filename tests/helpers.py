"""What several tests need: settings by way of params.yaml, and a small set of pictures with its manifest."""

import hashlib
import io
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from PIL import Image

from cxr.common.files import sha256_of
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.evaluation.results import PackagingResult
from cxr.evaluation.scores import Sample
from cxr.loading.rasters import ImageDataset
from cxr.models.build import Network, build
from cxr.models.bundle import Bundle
from cxr.packaging import package
from cxr.serving.probabilities import softmax
from cxr.settings import load
from cxr.settings.schema import Settings

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("normal", "bacteria", "virus")


def network(name: str = "efficientnet_lite0", *, seed: int = 0, size: int = 64, **model: object) -> Network:
    """A network with a random head: ImageNet weights for EfficientNet-Lite0, random ones for all others."""
    weights = "imagenet" if name == "efficientnet_lite0" else "none"
    keys = {"name": name, "weights": weights, "input_size": size, **model}
    return build(settings_with({f"model.{k}": v for k, v in keys.items()}).model, CLASSES, seed=seed)


def settings_with(overrides: dict[str, object], profile: str = "") -> Settings:
    """The shipped settings with some of them replaced, as a command line would."""
    return load.load_settings(ROOT / "params.yaml", profile, {key: str(value) for key, value in overrides.items()})


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


@dataclass(frozen=True)
class Deployed:
    """A served folder, and the bundle and split that it was made from."""

    folder: Path
    bundle: Bundle
    manifest: Manifest
    result: PackagingResult


def deployed(folder: Path, net: Network | None = None, **serving: object) -> Deployed:
    """What `evaluate` would register of a small network."""
    bundle = Bundle(net or network(), 1.3, {"youden": 0.6, "sensitive": 0.3})
    manifest = small_set(folder, per_class=24, side=80)
    evaluated = {split: probabilities(bundle, manifest.split(split)) for split in ("val", "test")}
    settings = settings_with({f"serving.{k}": v for k, v in serving.items()}).serving
    samples = {split: Sample.of(manifest.split(split), 0) for split in evaluated}
    result = package.write(folder / "service", bundle, datasets(bundle, manifest), settings, 0, evaluated, samples)
    return Deployed(folder / "service", bundle, manifest, result)


def datasets(bundle: Bundle, manifest: Manifest) -> dict[str, ImageDataset]:
    """The splits of a manifest as the network of a bundle sees them."""
    return {split: ImageDataset(manifest.split(split), bundle.network.spec) for split in ("train", "val", "test")}


def probabilities(bundle: Bundle, split: Manifest) -> np.ndarray:
    """The calibrated probabilities (n, C) of a bundle, as `evaluate` computes them."""
    logits = predict_logits(Predictor(bundle), ImageDataset(split, bundle.network.spec), 8)
    return softmax(logits / bundle.temperature)


def identity(bundle: Bundle) -> str:
    """A digest of everything that an exported network depends on; the temperature is no part of it."""
    net = bundle.network
    facts = (net.name, net.spec, net.views, net.members, net.head, bundle.folds, str(net.module))
    digest = hashlib.sha256(repr(facts).encode())
    for name, value in net.module.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def png(grey: np.ndarray, kind: str = "PNG") -> bytes:
    """Grey levels, or RGB, as the bytes of a picture file."""
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, kind)
    return buffer.getvalue()


def free_port() -> int:
    """A port that nobody listens on, and that no other process of the suite is given.

    It may be used seconds later: ports that the system chooses could be those of another server by then.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = 20_000 + 3_000 * (worker % 4) + secrets.randbelow(3_000)  # below those that the system chooses
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def lives(pid: int) -> bool:
    """Whether the process has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds: float = 90):
    """The first true value of `condition()`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")
