"""The reference of a version: its answers to its validation images (see `cxr.monitoring.reference`)."""

import numpy as np
from numpy import ndarray

from cxr.evaluation.scores import Sample
from cxr.loading.rasters import RasterDataset
from cxr.models.bundle import Bundle
from cxr.monitoring import reference
from cxr.monitoring.reference import Reference
from cxr.packaging.outputs import Outputs
from cxr.serving import decision
from cxr.serving.decision import Band
from cxr.serving.ood import OODDetector
from cxr.serving.probabilities import finding_probability, softmax
from cxr.serving.reasons import IMPLAUSIBLE, INVERTED, UNDECIDED, UNLIKE
from cxr.serving.service import DISTANCE


def of_validation(
    bundle: Bundle,
    detector: OODDetector,
    outputs: Outputs,
    dataset: RasterDataset,
    bands: dict[str, Band],
    sample: Sample | None,
) -> Reference:
    """The reference of what is served for a bundle.

    Args:
        bundle: gives classes, temperature and operating points.
        detector: as it is served, rounded by its file.
        outputs: of the served network for the n validation images; out of fold for an ensemble of folds.
        dataset: these images.
        bands: for each operating point, the probabilities of the finding for which the model refers.
        sample: names of the patients; without it, every image is of a patient of its own.
    """
    probabilities = softmax(outputs.logits / bundle.temperature)
    positive, distances = finding_probability(probabilities), detector.distances(outputs.features)
    columns = {f"probability_{name}": probabilities[:, i] for i, name in enumerate(bundle.network.classes)}
    columns |= {f"probability_{bundle.finding}": positive, DISTANCE: distances, "brightness": outputs.brightness}
    columns |= {"width": dataset.sizes[:, 0], "height": dataset.sizes[:, 1]}
    return reference.of_answers(
        classes=tuple(bundle.network.classes),
        finding=bundle.finding,
        operating_points=decision.operating_points(bundle.operating_points),
        labels=dataset.labels,
        patients=np.arange(len(positive)) if sample is None else sample.patients,
        columns=columns,
        reasons={point: reasons(positive, band, detector, outputs, distances) for point, band in bands.items()},
        out_of_fold=bool(bundle.folds),
    )


def reasons(
    positive: ndarray, band: Band, detector: OODDetector, outputs: Outputs, distances: ndarray
) -> dict[str, ndarray]:
    """Whether each image is referred for each kind of reason, `bool` of shape (n,).

    Args:
        positive: probabilities of the finding, of shape (n,).
        band: those in which the model refers.
        detector: the out-of-distribution detector.
        outputs: of the served network.
        distances: of the detector, of shape (n,).
    """
    return {
        UNDECIDED: decision.in_band(positive, band),
        UNLIKE: detector.is_far(distances),
        INVERTED: detector.is_inverted(outputs.features),
        IMPLAUSIBLE: outputs.implausible,
    }
