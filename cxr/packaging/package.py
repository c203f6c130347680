"""From a bundle to the folder that is served: network as ONNX, out-of-distribution detector, configuration.

Writes `model.onnx`, `ood.npz` and `service.json` (see `cxr.serving.service`), and `reference.json` (see
`cxr.monitoring.reference`). The served network must answer as the evaluated one: probabilities that differ by more than
`TOLERANCE` are an error.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from cxr.common.files import write_atomic
from cxr.common.hardware import cores
from cxr.common.names import PNEUMONIA
from cxr.errors import CxrError
from cxr.evaluation.bands import choose
from cxr.evaluation.results import PackagingResult, Referrals
from cxr.evaluation.risk_coverage import answered
from cxr.evaluation.scores import Sample
from cxr.loading.rasters import RasterDataset
from cxr.models.bundle import Bundle
from cxr.monitoring.reference import FILE as REFERENCE
from cxr.packaging.engine import Candidate, choose_engine
from cxr.packaging.export_onnx import to_onnx
from cxr.packaging.fit_ood import fit_detector
from cxr.packaging.outputs import Outputs, run
from cxr.packaging.reference import of_validation, reasons
from cxr.serving import decision
from cxr.serving.decision import Band
from cxr.serving.ood import OODDetector
from cxr.serving.probabilities import NEGATIVE, finding_probability, softmax
from cxr.serving.request import Limits
from cxr.serving.service import CONFIG, DETECTOR, FORMAT, MODEL
from cxr.serving.session import Session
from cxr.settings.serving import ServingSettings

log = logging.getLogger(__name__)

TOLERANCE = 1e-4  # between probabilities of the bundle and of the served network
LIMITS = tuple(limit.name for limit in fields(Limits))  # settings that are limits of requests
MANY_REFERRED = 0.1  # share of validation images above which a warning is logged


def write(
    folder: Path,
    bundle: Bundle,
    datasets: dict[str, RasterDataset],
    settings: ServingSettings,
    seed: int,
    evaluated: dict[str, ndarray],
    samples: dict[str, Sample] | None = None,
    bands: dict[str, Band] | None = None,
) -> PackagingResult:
    """Write what is served into `folder`, and tell how it differs from `evaluated` and which images it refers.

    Args:
        folder: made if absent.
        bundle: the evaluated bundle.
        datasets: "train", and the splits of `evaluated`; for an ensemble of folds, those of its first member.
        settings: limits, how bands are chosen, and the size of the sample that the detector is fitted on.
        seed: draws that sample from the training split.
        evaluated: the bundle's probabilities (n, C) for all images of "val" and "test"; for an ensemble of folds, those
            of its first member for "val".
        samples: the same images; without them, it is not told how the model does on those that it answers.
        bands: in which images are referred, by operating point; without them, they are chosen on "val" of `evaluated`.
            For an ensemble of folds, that is only a part of what was answered out of fold.

    Raises:
        CxrError: the network as ONNX, or with the engine in `settings`, answers differently, the bundle lacks the
            operating point in `settings`, or no band reaches the risk in `settings`.
    """
    points = checked_points(bundle, settings)
    if bands is None:
        truth = datasets["val"].labels != NEGATIVE
        bands = choose(truth, finding_probability(evaluated["val"]), points, settings)
    spec = bundle.network.spec
    network = to_onnx(bundle)
    session = Session(network, cores(), spec.size)
    train = datasets["train"]
    sample = np.sort(np.random.default_rng(seed).permutation(len(train))[: settings.ood_images])
    learnt = run(session, train, sample, negatives=True)
    outputs = {split: run(session, datasets[split], np.arange(len(datasets[split]))) for split in evaluated}
    answers = softmax(outputs["val"].logits / bundle.temperature) if "val" in outputs else None
    if bundle.folds:  # the other members were trained on these images
        out_of_fold = bundle.temperature * np.log(np.maximum(evaluated["val"], 1e-300))
        outputs["val"] = replace(outputs["val"], logits=out_of_fold)
    differences = {split: _difference(bundle, outputs[split], evaluated[split]) for split in evaluated}
    log.info("served and evaluated probabilities differ by at most %.1e", max(differences.values()))
    # What is evaluated of an ensemble of folds is out of fold: its engine is held against ONNX Runtime.
    reference = answers if bundle.folds else evaluated.get("val")
    candidate = Candidate(network, session, datasets.get("val"), reference, bundle.temperature, points)
    engine = choose_engine(settings.engine, candidate)
    detector = fit_detector(learnt.features, learnt.negatives, outputs["val"].features, settings.ood_share)
    files = {DETECTOR: detector.save()}
    write_atomic(folder / DETECTOR, files[DETECTOR])
    detector = OODDetector.load(folder / DETECTOR)  # as rounded by its file
    sample_of = samples or {}
    made = of_validation(bundle, detector, outputs["val"], datasets["val"], bands, sample_of.get("val"))
    for name, content in ((MODEL, network), (REFERENCE, made.to_json().encode())):
        files[name] = content
        write_atomic(folder / name, content)
    config = {
        "format": FORMAT,
        "engine": engine,
        "classes": list(bundle.network.classes),
        "input": spec.to_dict(),
        **decided_by(bundle, settings, bands),
        "sha256": {name: hashlib.sha256(files[name]).hexdigest() for name in (MODEL, DETECTOR, REFERENCE)},
    }
    if bundle.finding != PNEUMONIA:
        config["finding"] = bundle.finding
    write_atomic(folder / CONFIG, (json.dumps(config, indent=2, allow_nan=False) + "\n").encode())
    referred = {
        split: _referrals(bundle, detector, outputs[split], settings, bands, sample_of.get(split)) for split in outputs
    }
    if referred["val"].share > MANY_REFERRED:
        log.warning(
            "%.1f %% of the validation images would be referred; to refer fewer, lower serving.refer_share or "
            "serving.ood_share, or raise serving.risk",
            100 * referred["val"].share,
        )
    return PackagingResult(
        largest_difference=max(differences.values()),
        engine=engine,
        operating_point=settings.operating_point,
        referred=referred,
    )


def checked_points(bundle: Bundle, settings: ServingSettings) -> dict[str, float]:
    """The thresholds of a bundle by operating point; `CxrError` if it lacks the one in `settings`."""
    points = decision.operating_points(bundle.operating_points)
    if settings.operating_point not in points:
        allowed = ", ".join(points)
        raise CxrError(f"serving.operating_point={settings.operating_point}; this bundle has {allowed}")
    return points


def decided_by(bundle: Bundle, settings: ServingSettings, bands: Mapping[str, Any]) -> dict[str, Any]:
    """What `service.json` takes from a bundle and settings without any image, with the bands of referral."""
    return {
        "temperature": bundle.temperature,
        "operating_points": bundle.operating_points,
        "operating_point": settings.operating_point,
        "bands": bands,
        "limits": {name: getattr(settings, name) for name in LIMITS},
    }


def _difference(bundle: Bundle, outputs: Outputs, evaluated: ndarray) -> float:
    served = softmax(outputs.logits / bundle.temperature)
    difference = float(np.abs(served - evaluated).max())
    if not difference <= TOLERANCE:  # NaN included
        raise CxrError(
            f"{bundle.network.name} as ONNX gives other probabilities (by {difference:.1e}, allowed is {TOLERANCE:g}); "
            "this architecture cannot be served, evaluate it with registry.register=false"
        )
    return difference


def _referrals(
    bundle: Bundle,
    detector: OODDetector,
    outputs: Outputs,
    settings: ServingSettings,
    bands: dict[str, Band],
    sample: Sample | None,
) -> Referrals:
    """Whom the served model refers at its own operating point."""
    point = settings.operating_point
    threshold = decision.operating_points(bundle.operating_points)[point]
    positive = finding_probability(softmax(outputs.logits / bundle.temperature))
    masks = reasons(positive, bands[point], detector, outputs, detector.distances(outputs.features))
    referred = np.logical_or.reduce(list(masks.values()))
    found = None
    if sample is not None:
        wrong = decision.is_positive(positive, threshold) != (sample.labels != NEGATIVE)
        found = answered(referred, wrong, sample)
    return Referrals(
        images=len(referred),
        share=float(referred.mean()),
        reasons={name: int(mask.sum()) for name, mask in masks.items()},
        answered=found,
    )
