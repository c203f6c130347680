"""Fit the temperature and choose the operating points of a bundle, on the validation split alone."""

import logging

from numpy import ndarray

from cxr.evaluation import calibration, thresholds
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.loading.rasters import RasterDataset
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import NEGATIVE, finding_probability, softmax
from cxr.settings.schema import CalibrationSettings

log = logging.getLogger(__name__)
_BATCH = 64


def tune(bundle: Bundle, val: RasterDataset, settings: CalibrationSettings, device: str) -> None:
    """Set the temperature and operating points of `bundle` from the images of the validation split."""
    tune_on(bundle, predict_logits(Predictor(bundle, device), val, _BATCH), val.labels, settings)


def tune_on(bundle: Bundle, logits: ndarray, labels: ndarray, settings: CalibrationSettings) -> None:
    """Set the temperature and operating points of `bundle` from logits (n, C) and labels (n,) of validation images."""
    bundle.temperature, bundle.operating_points = choose(logits, labels, settings)
    points = ", ".join(f"{name} {value:.3f}" for name, value in bundle.operating_points.items())
    shown = bundle.temperature, bundle.finding, points or "none"
    log.info("temperature %.3f; thresholds on the probability of %s: %s", *shown)


def set_views(bundle: Bundle, views: int, val: RasterDataset, settings: CalibrationSettings, device: str) -> None:
    """Answer by the mean of `views` views from now on; since that changes the logits, tune the bundle to it."""
    bundle.network.views = views
    tune(bundle, val, settings, device)


def choose(logits: ndarray, labels: ndarray, settings: CalibrationSettings) -> tuple[float, dict[str, float]]:
    """Temperature and thresholds by name, for logits (n, C) and labels (n,) of the validation split."""
    temperature = calibration.fit_temperature(logits, labels) if settings.temperature == "fitted" else 1.0
    score = finding_probability(softmax(logits / temperature))
    return temperature, thresholds.choose(labels != NEGATIVE, score, settings.min_sensitivity)
