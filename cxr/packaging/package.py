"""From a bundle to the folder that is served: network as ONNX, guard, facts; checked against the bundle itself.

Reads a bundle and its split; writes `model.onnx`, `guard.npz` and `service.json` (see `cxr.serving.service`). What is
served must answer as what was evaluated: probabilities that differ by more than `TOLERANCE` are an error.
"""

import hashlib
import json
import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from cxr.common.files import write_atomic
from cxr.common.hardware import cores
from cxr.datasets.manifest import Manifest, read_verified
from cxr.errors import CxrError
from cxr.imaging import decode
from cxr.imaging.preprocess import InputSpec
from cxr.models.bundle import Bundle
from cxr.packaging import fit_ood
from cxr.packaging.export_onnx import to_onnx
from cxr.serving.ood import OODDetector, implausible
from cxr.serving.probabilities import pneumonia_probability, softmax, undecided
from cxr.serving.service import ARGMAX, BATCH, FACTS, FORMAT, GUARD, MODEL
from cxr.serving.session import Session
from cxr.settings.schema import ServingSettings

log = logging.getLogger("cxr.packaging.package")

TOLERANCE = 1e-4  # between probabilities of the bundle and of the served network
REFERRED = 0.03  # of validation images; more are worth a warning


@dataclass(frozen=True)
class Looked:
    """What a network gives for the n images of a part, and what the first sight of each picture tells."""

    logits: ndarray  # (n, C)
    features: ndarray  # (n, F)
    negatives: ndarray  # (n or 0, F): features with black and white exchanged
    implausible: list[list[str]]


def look(session: Session, spec: InputSpec, part: Manifest, *, negatives: bool = False) -> Looked:
    """Send all images of a part through the network as a server does."""

    def one(row: int) -> tuple[ndarray, list[str]]:
        picture = decode.decode_image(read_verified(part, row))
        return spec.to_raster(picture.grey), implausible(picture)

    logits, features, inverted, reasons = [], [], [], []
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(part), BATCH):
            found = list(pool.map(one, range(start, min(start + BATCH, len(part)))))
            rasters = np.stack([raster for raster, _ in found])
            for kept, given in zip((logits, features), session.run(rasters), strict=False):
                kept.append(given)
            if negatives:
                inverted.append(session.run(255 - rasters)[1])
            reasons += [own for _, own in found]
    width = features[0].shape[1]
    return Looked(np.concatenate(logits).astype(np.float64), np.concatenate(features),
                  np.concatenate(inverted) if negatives else np.empty((0, width)), reasons)  # fmt: skip


def write(
    folder: Path, bundle: Bundle, manifest: Manifest, settings: ServingSettings, seed: int,
    evaluated: dict[str, ndarray],
) -> dict[str, Any]:  # fmt: skip
    """Write what is served into `folder`; returns how it differs from `evaluated` and whom it refers, by part.

    `evaluated` has the bundle's own probabilities for all images of "val" and "test".
    """
    if settings.operating_point not in (ARGMAX, *bundle.operating_points):
        allowed = ", ".join((ARGMAX, *bundle.operating_points))
        raise CxrError(f"serving.operating_point={settings.operating_point}; this bundle has {allowed}")
    network = to_onnx(bundle)
    session = Session(network, cores(), bundle.network.spec.size)
    train = manifest.split("train")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(train))[: settings.ood_images])
    sample = Manifest(train.rows.iloc[chosen].reset_index(drop=True), train.root, train.classes)
    spec = bundle.network.spec
    learnt = look(session, spec, sample, negatives=True)
    parts = {split: look(session, spec, manifest.split(split)) for split in evaluated}
    differences = {split: _difference(bundle, parts[split], evaluated[split]) for split in evaluated}
    log.info("served and evaluated probabilities differ by at most %.1e", max(differences.values()))
    guard = fit_ood.fit(learnt.features, learnt.negatives, parts["val"].features, settings.ood_share)
    files = {MODEL: network, GUARD: guard.save()}
    for name, content in files.items():
        write_atomic(folder / name, content)
    facts = {
        "format": FORMAT,
        "classes": list(bundle.network.classes),
        "input": spec.to_dict(),
        "temperature": bundle.temperature,
        "operating_points": bundle.operating_points,
        "operating_point": settings.operating_point,
        "abstain": settings.abstain,
        "limits": {name: getattr(settings, name) for name in ("max_bytes", "max_pixels", "max_images")},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    write_atomic(folder / FACTS, (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode())
    guard = OODDetector.load(folder / GUARD)  # as rounded by its file
    referred = {split: _referred(bundle, guard, parts[split], settings) for split in parts}
    if referred["val"]["share"] > REFERRED:
        log.warning("%.1f %% of the validation images would be referred; a narrower serving.abstain or a smaller "
                    "serving.ood_share refers fewer", 100 * referred["val"]["share"])  # fmt: skip
    return {"largest_difference": max(differences.values()), "referred": referred}


def _difference(bundle: Bundle, found: Looked, evaluated: ndarray) -> float:
    served = softmax(found.logits / bundle.temperature)
    difference = float(np.abs(served - evaluated).max())
    if not difference <= TOLERANCE:
        raise CxrError(
            f"{bundle.network.name} as ONNX gives other probabilities (by {difference:.1e}, allowed is {TOLERANCE:g}); "
            "this architecture cannot be served, evaluate it with registry.register=false"
        )
    return difference


def _referred(bundle: Bundle, guard: OODDetector, found: Looked, settings: ServingSettings) -> dict[str, Any]:
    """Share of the images of a part that would be referred, and for which reasons (some for several)."""
    pneumonia = pneumonia_probability(softmax(found.logits / bundle.temperature))
    kinds = {
        "undecided": undecided(pneumonia, settings.abstain),
        "unlike training": guard.are_far(guard.distances(found.features)),
        "inverted": guard.are_negatives(found.features),
        "implausible": np.array([bool(reasons) for reasons in found.implausible]),
    }
    any_ = np.logical_or.reduce(list(kinds.values()))
    return {"images": len(any_), "share": float(any_.mean()),
            "reasons": Counter({name: int(mask.sum()) for name, mask in kinds.items()})}  # fmt: skip
