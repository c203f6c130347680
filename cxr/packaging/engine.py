"""Chooses the engine of a version: OpenVINO only where it is proven to answer as the evaluated network does.

The proof is made on all validation images: no label and no decision differs, and no probability by more than
`TOLERANCE`. It is made again for every version, since it holds for its weights alone.
"""

import logging
import time
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy import ndarray

from cxr.common.hardware import cores
from cxr.common.names import ONNXRUNTIME, OPENVINO
from cxr.errors import CxrError
from cxr.loading.rasters import RasterDataset, in_order, read_batches
from cxr.serving import decision
from cxr.serving.engines import AnySession, open_session
from cxr.serving.openvino_session import is_installed
from cxr.serving.probabilities import finding_probability, softmax
from cxr.serving.service import BATCH
from cxr.serving.session import Session

log = logging.getLogger(__name__)

AUTO = "auto"
TOLERANCE = 1e-3  # between probabilities
FASTER = 1.05  # how many times as fast OpenVINO must be for `auto`, on one image
_ROUNDS, _IMAGES = 9, 8  # of the comparison of speeds; images of a batch


@dataclass(frozen=True)
class Proof:
    """What the validation images say of an engine.

    Attributes:
        difference: largest difference of a probability; NaN if one is not finite.
        changed: images whose label, or whose decision at any operating point, is another one.
    """

    difference: float
    changed: int

    @property
    def holds(self) -> bool:
        """Whether the engine may be taken."""
        return self.difference <= TOLERANCE and not self.changed

    def __str__(self) -> str:
        return f"{self.changed} labels or decisions changed, probabilities differ by at most {self.difference:.1e}"


@dataclass(frozen=True)
class Candidate:
    """A network that is to be served, and what it answered when it was evaluated.

    Attributes:
        network: the ONNX file.
        session: the same with ONNX Runtime, for the comparison of speeds.
        images: the validation images, if there are any.
        evaluated: their probabilities (n, C).
        temperature: of the bundle.
        thresholds: of its operating points, by name.
    """

    network: bytes
    session: Session
    images: RasterDataset | None
    evaluated: ndarray | None
    temperature: float
    thresholds: dict[str, float]


def choose_engine(wanted: str, candidate: Candidate) -> str:
    """The name of the engine to serve a network with, as `serving.engine` wants it.

    Raises:
        CxrError: `openvino` is wanted, and is not installed or fails the proof.
    """
    if wanted == ONNXRUNTIME:
        return ONNXRUNTIME
    try:
        return _proven(wanted, candidate)
    except CxrError as error:
        if wanted == OPENVINO:
            raise
        log.info("serving.engine=auto: onnxruntime, since %s", error)
        return ONNXRUNTIME


def _proven(wanted: str, candidate: Candidate) -> str:
    images, evaluated = candidate.images, candidate.evaluated
    if not is_installed():
        raise CxrError(
            f"serving.engine={wanted}: OpenVINO is not installed; pip install -r requirements-openvino.txt, or set "
            f"serving.engine={ONNXRUNTIME}"
        )
    if images is None or evaluated is None or not len(images):
        raise CxrError(
            f"serving.engine={wanted}: there are no validation images to prove it on; set serving.engine={ONNXRUNTIME}"
        )
    size = images.rasters(np.arange(1)).shape[-1]
    other = open_session(OPENVINO, candidate.network, cores(), size)
    found = prove(other, images, evaluated, candidate.temperature, candidate.thresholds)
    if not found.holds:
        raise CxrError(
            f"serving.engine={wanted}: OpenVINO answers otherwise on the validation images ({found}; allowed are 0 and "
            f"{TOLERANCE:g}); set serving.engine={ONNXRUNTIME}"
        )
    one, many = speeds(candidate.session, other, images)
    told = (
        f"OpenVINO takes {one[1]:.1f} ms for one image and {many[1]:.1f} for {_IMAGES}, ONNX Runtime {one[0]:.1f} and"
    )
    told = f"{told} {many[0]:.1f}"
    if wanted == AUTO and (one[0] < FASTER * one[1] or many[0] < many[1]):
        raise CxrError(f"OpenVINO is not faster: {told}")
    log.info("serving.engine=%s: openvino; %s; %s", wanted, found, told)
    return OPENVINO


def prove(
    session: AnySession, images: RasterDataset, evaluated: ndarray, temperature: float, thresholds: dict[str, float]
) -> Proof:
    """How the answers of a session differ from the `evaluated` probabilities (n, C) of the same images."""
    batches = in_order(len(images), BATCH)
    logits = np.concatenate([session.logits(rasters) for rasters in read_batches(images.rasters, batches)])
    return proof(softmax(logits / temperature), evaluated, thresholds)


def proof(served: ndarray, evaluated: ndarray, thresholds: dict[str, float]) -> Proof:
    """How probabilities (n, C) that are served differ from the `evaluated` ones."""
    changed = served.argmax(1) != evaluated.argmax(1)
    for threshold in thresholds.values():
        ours, theirs = (finding_probability(values) for values in (served, evaluated))
        changed |= decision.is_positive(ours, threshold) != decision.is_positive(theirs, threshold)
    return Proof(float(np.abs(served - evaluated).max()), int(changed.sum()))


Pair = tuple[float, float]


def speeds(first: AnySession, second: AnySession, images: RasterDataset) -> tuple[Pair, Pair]:
    """Median milliseconds of two sessions, in turn: of one image, and of a batch of several."""
    rasters = images.rasters(np.arange(min(_IMAGES, len(images))))
    return _timed(first, second, rasters[:1]), _timed(first, second, rasters)


def _timed(first: AnySession, second: AnySession, rasters: ndarray) -> Pair:
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(_ROUNDS + 1):
        for session, times in zip((first, second), taken, strict=True):
            start = time.perf_counter()
            session.run(rasters)
            times.append(1000 * (time.perf_counter() - start))
    return median(taken[0][1:]), median(taken[1][1:])  # the first call with a new shape prepares for it
