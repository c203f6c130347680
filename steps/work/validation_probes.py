"""What becomes of the answers of a registered model if images of the set, or its weights, are changed.

The served network answers the changed images. Maps of random weights need the bundle that the version was made from.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from cxr.datasets.manifest import Manifest
from cxr.evaluation import cam, robustness, sanity
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.probes import MapSanity, ShortcutTest
from cxr.loading.changes import whole_patients
from cxr.models import bundle
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import softmax
from cxr.serving.service import BATCH
from steps.runtime import runs
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from steps.work.validate import Answers

_MOST = 1000  # images, of which all rasters are held at once
_STEPS = ("evaluate", "ensemble", "finetune", "train")  # runs that may have the bundle


def shortcuts(context: Context, answers: "Answers", manifest: Manifest) -> tuple[list[ShortcutTest], int]:
    """The tests of shortcuts on some of the scored images, and the number of these; none if they are off."""
    settings, service = context.settings.evaluate, answers.service
    if not settings.robustness:
        return [], 0
    rows = whole_patients(manifest, context.settings.seed, min(settings.robustness_images or _MOST, _MOST))
    context.log.info("testing for shortcuts on %d images", len(rows))

    def probabilities(rasters: ndarray) -> ndarray:
        batches = [rasters[start : start + BATCH] for start in range(0, len(rasters), BATCH)]
        logits = np.concatenate([service.session.logits(batch) for batch in batches])
        return answers.mapping.probabilities(softmax(logits / service.temperature))

    rasters, sample = _rasters(answers, manifest, rows), answers.sample.subset(rows)
    return robustness.shortcuts(probabilities, rasters, sample), len(rows)


def map_sanity(context: Context, version: "ModelVersion", answers: "Answers", manifest: Manifest) -> MapSanity | None:
    """Whether the maps of some scored images depend on the weights."""
    most = context.settings.evaluate.map_images
    loaded = _bundle(context, version) if most else None
    if loaded is None:
        return None
    maps = cam.ClassActivationMap.of(Predictor(loaded), loaded.network)
    if maps is None:
        return None
    context.log.info("comparing class activation maps with those of random weights")
    rows = whole_patients(manifest, context.settings.seed, most)
    rasters, sample = _rasters(answers, manifest, rows), answers.sample.subset(rows)
    return sanity.sanity(maps, loaded.network, rasters, sample, context.settings.seed)


def _rasters(answers: "Answers", manifest: Manifest, rows: ndarray) -> ndarray:
    """What the served network sees of some images, `uint8` of shape (n, S, S); all of them have been read before."""
    files = manifest.files()
    images = [answers.service.read(files[row].read_bytes()).image for row in rows]
    return np.stack([image.raster for image in images if image is not None])


def _bundle(context: Context, version: "ModelVersion") -> Bundle | None:
    """The bundle that a version was made from; None if no run that it names has it."""
    for step in _STEPS:
        run_id = version.tags.get(f"cxr.{step}_run_id")
        if run_id is not None and runs.has_artifact(context.client, run_id, f"bundle/{bundle.CONFIG}"):
            folder = context.fetch(run_id, "bundle")
            if bundle.digest(folder) == version.tags.get("cxr.bundle_digest"):
                return bundle.load(folder)
    return None
