"""What validation decides once the weights are fixed: the temperature and the operating points of a bundle."""

import logging

import numpy as np
from numpy import ndarray

from cxr.datasets.manifest import Manifest, read_verified
from cxr.errors import CxrError
from cxr.evaluation import calibration, thresholds
from cxr.evaluation.predictor import Predictor
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import NORMAL, pneumonia_probability, softmax
from cxr.settings.schema import CalibrationSettings

log = logging.getLogger("cxr.tuning")
_BATCH = 64


def tune(bundle: Bundle, manifest: Manifest, settings: CalibrationSettings, device: str) -> None:
    """Fit temperature and operating points of `bundle` on the validation part of `manifest`; no other part is read."""
    validation = manifest.split("val")
    logits = logits_of(Predictor(bundle, device), validation, _BATCH)
    bundle.temperature, bundle.operating_points = choose(logits, validation.labels(), settings)
    points = ", ".join(f"{name} {value:.3f}" for name, value in bundle.operating_points.items())
    log.info("temperature %.3f; thresholds on the probability of pneumonia: %s", bundle.temperature, points or "none")


def choose(logits: ndarray, labels: ndarray, settings: CalibrationSettings) -> tuple[float, dict[str, float]]:
    """Temperature and thresholds for logits (n, C) and labels (n,) of a validation part."""
    temperature = calibration.fit_temperature(logits, labels) if settings.temperature == "fitted" else 1.0
    score = pneumonia_probability(softmax(logits / temperature))
    return temperature, thresholds.choose(labels != NORMAL, score, settings.min_sensitivity)


def logits_of(predictor: Predictor, part: Manifest, batch_size: int) -> ndarray:
    """Logits `float64` of shape (n, C) of the images of a part, each checked against the manifest."""
    readers = [lambda i=i: read_verified(part, i) for i in range(len(part))]
    logits = predictor.predict_logits(readers, batch_size)
    if not np.isfinite(logits).all():
        raise CxrError("the network's answers are not finite numbers; train again, with precision=float32")
    return logits
