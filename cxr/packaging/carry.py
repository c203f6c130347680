"""A folder to serve for a bundle whose images are gone: what was learnt from images comes from a served version of it.

The network is exported anew. Detector, bands and whatever else was fitted on images are those of the other version;
limits and the operating point, which need no images, are those of the settings. Its engine is kept only if it answers
phantoms as the bundle does: the images that OpenVINO was proven on are gone, and it may be another release by now.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr.common.files import check_digest, write_atomic
from cxr.common.hardware import cores
from cxr.common.names import ONNXRUNTIME
from cxr.datasets import phantom
from cxr.errors import CxrError
from cxr.evaluation.predictor import Predictor
from cxr.imaging.reader import ImageReader
from cxr.models.bundle import Bundle
from cxr.packaging.engine import AUTO, proof
from cxr.packaging.export_onnx import to_onnx
from cxr.packaging.package import LIMITS, TOLERANCE, checked_points, decided_by
from cxr.serving.engines import open_session
from cxr.serving.probabilities import softmax
from cxr.serving.service import CONFIG, FORMAT, MODEL
from cxr.settings.serving import ServingSettings

log = logging.getLogger(__name__)

_PHANTOMS = 4  # of each kind, on which the exported network is checked


def write(folder: Path, bundle: Bundle, served: Path, settings: ServingSettings, given: Mapping[str, Any]) -> None:
    """Write what is served into `folder`.

    Args:
        folder: made if absent.
        bundle: the bundle that `served` was made of.
        served: the served folder of the other version.
        settings: its settings, with other limits or another operating point.
        given: its settings as they were, by name.

    Raises:
        CxrError: see `check`; or the network as ONNX, or with the engine in `settings`, answers differently.
    """
    config = check(served, settings, given)
    points = checked_points(bundle, settings)
    network = to_onnx(bundle)
    engine = _engine(bundle, network, points, settings.engine, config.get("engine", ONNXRUNTIME))
    for name in config["sha256"]:
        if name != MODEL:
            write_atomic(folder / name, (served / name).read_bytes())
    write_atomic(folder / MODEL, network)
    config["sha256"][MODEL] = hashlib.sha256(network).hexdigest()
    config |= {"engine": engine, **decided_by(bundle, settings, config["bands"])}
    write_atomic(folder / CONFIG, (json.dumps(config, indent=2, allow_nan=False) + "\n").encode())


def check(served: Path, settings: ServingSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a served folder from which everything can be taken over; arguments are those of `write`.

    Raises:
        CxrError: the other version is damaged or has another format, or a setting was changed that takes images.
    """
    config = _config(served)
    given = {"engine": ONNXRUNTIME, **given}  # settings of before there was a choice
    free = {*LIMITS, "operating_point"}
    if settings.engine == ONNXRUNTIME:  # against which any other engine is proven
        free.add("engine")
    for name, value in settings.model_dump().items():
        if name not in free and (name not in given or given[name] != value):
            raise CxrError(f"serving.{name} takes the images that the model was made with, which are gone")
    return config


def _config(served: Path) -> dict[str, Any]:
    try:
        config = json.loads((served / CONFIG).read_text(encoding="utf-8"))
        if config["format"] != FORMAT:
            raise CxrError(
                f"its format is {config['format']}, and what format {FORMAT} has besides is chosen on images, which "
                "are gone"
            )
        for name, wanted in config["sha256"].items():
            check_digest(served / name, wanted, owner="its served files", config=CONFIG, remedy="restore them")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CxrError(f"its served files are damaged ({error})") from None
    return config


def _engine(bundle: Bundle, network: bytes, points: dict[str, float], wanted: str, before: str) -> str:
    """The engine to serve the exported network with: `before` if it is still `wanted` and answers as the bundle does.

    Raises:
        CxrError: the network answers phantoms otherwise than the bundle, or the engine that is wanted does.
    """
    spec = bundle.network.spec
    reader = ImageReader(spec)
    drawn = [phantom.example(label, seed) for label in phantom.SHARES for seed in range(_PHANTOMS)]
    rasters = np.stack([reader.raster(image) for image in drawn])

    def served(engine: str) -> np.ndarray:
        return softmax(open_session(engine, network, cores(), spec.size).logits(rasters) / bundle.temperature)

    evaluated = softmax(Predictor(bundle).logits(rasters) / bundle.temperature)
    difference = float(np.abs(served(ONNXRUNTIME) - evaluated).max())
    if not difference <= TOLERANCE:  # NaN included
        raise CxrError(f"{bundle.network.name} as ONNX gives other probabilities (by {difference:.1e})")
    if ONNXRUNTIME in (wanted, before):
        return ONNXRUNTIME
    try:
        found = proof(served(before), evaluated, points)
        if not found.holds:
            raise CxrError(f"{before} answers phantoms otherwise ({found})")
    except CxrError as error:
        if wanted != AUTO:
            raise CxrError(f"serving.engine={wanted}: {error}; set serving.engine={ONNXRUNTIME}") from None
        log.warning("serving.engine=auto: %s, since %s", ONNXRUNTIME, error)
        return ONNXRUNTIME
    log.info("serving.engine=%s: %s, as before; on %d phantoms, %s", wanted, before, len(drawn), found)
    return before
