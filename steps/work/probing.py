"""The part of `evaluate` that changes images and weights, and looks what becomes of the answers."""

from typing import TYPE_CHECKING

from cxr.evaluation import cam, robustness, sanity
from cxr.evaluation.probes import MapSanity, Robustness
from cxr.evaluation.scores import Sample
from cxr.loading.changes import CHANGES, whole_patients
from steps.runtime.context import Context

if TYPE_CHECKING:
    from steps.work.evaluate import Subject


def robust(context: Context, subject: "Subject") -> Robustness:
    """Scores under changes of the test images, and the tests of shortcuts."""
    settings = context.settings.evaluate
    context.log.info("scoring under %d changes of the images", len(CHANGES) - 1)
    return robustness.robustness(
        subject.predictor,
        cam.ClassActivationMap.of(subject.predictor, subject.bundle.network),
        subject.manifest.split("test"),
        subject.datasets["test"],
        temperature=subject.bundle.temperature,
        seed=context.settings.seed,
        most=settings.robustness_images,
        batch_size=settings.batch_size,
    )


def map_sanity(context: Context, subject: "Subject", sample: Sample) -> MapSanity | None:
    """Whether the maps of some test images depend on the weights; None without exact maps, and if it is off."""
    most = context.settings.evaluate.map_images
    network, seed = subject.bundle.network, context.settings.seed
    maps = cam.ClassActivationMap.of(subject.predictor, network)
    if maps is None or not most:
        return None
    context.log.info("comparing class activation maps with those of random weights")
    rows = whole_patients(subject.manifest.split("test"), seed, most)
    return sanity.sanity(maps, network, subject.datasets["test"].rasters(rows), sample.subset(rows), seed)
