"""The out-of-distribution detector: images unlike the training images, and negatives.

It looks at the features of the network: how unlikely they are under a Gaussian with few main directions fitted on
training images (probabilistic PCA, M. Tipping and C. Bishop, 1999; as a distance for out-of-distribution detection:
K. Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS
2018), and whether they are those of a negative (black and white exchanged). `cxr.packaging.fit_ood` fits it; thresholds
come from validation images. What the image itself shows at first sight is `cxr.imaging.plausibility`.
"""

import io
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from cxr.errors import CxrError

QUANTILES = 201  # of the distances of validation images that are kept


@dataclass(frozen=True)
class OODDetector:
    """What was fitted to the features of training images.

    Attributes:
        mean: of the unit-length features of training images, of shape (F,).
        directions: main directions, of shape (K, F), each divided by the spread along it.
        rest: variance along each of the remaining directions, of shape ().
        far: threshold on the distance; images above it are out of distribution.
        probe: weights (F,) and, last, the bias of a linear score that is high for negatives.
        inverted: threshold on the score of the probe; images above it are negatives.
        validation: distances of the validation images at evenly spaced quantiles from 0 to 1, of shape (Q,), for
            comparison with images of other places; None in models that were registered before it was kept.
    """

    mean: ndarray
    directions: ndarray
    rest: ndarray
    far: ndarray
    probe: ndarray
    inverted: ndarray
    validation: ndarray | None = None

    def distances(self, features: ndarray) -> ndarray:
        """Squared Mahalanobis distances from the training images per dimension, of shape (B,), for features (B, F)."""
        z = unit(features) - self.mean
        along = z @ self.directions.T
        spreads = np.sum(self.directions**2, 1)  # 1 / variance
        inside = np.sum(along**2 / spreads, 1)
        return (np.sum(along**2, 1) + np.maximum(np.sum(z**2, 1) - inside, 0) / self.rest) / z.shape[1]

    def inversion_scores(self, features: ndarray) -> ndarray:
        """Scores of shape (B,), high for images with black and white exchanged."""
        return unit(features) @ self.probe[:-1] + self.probe[-1]

    def is_far(self, distances: ndarray) -> ndarray:
        """Whether each of `distances` (B,) is out of distribution; NaN counts as out of distribution."""
        return ~(distances <= self.far)

    def is_inverted(self, features: ndarray) -> ndarray:
        """Whether each row of features (B, F) is that of a negative, of shape (B,)."""
        return self.inversion_scores(features) > self.inverted

    def reasons(self, features: ndarray, distances: ndarray | None = None) -> list[list[str]]:
        """For each row of features (B, F), the reasons why the model should not answer it; empty if it may.

        `distances` (B,) are those of the features, if they are known already.
        """
        distances, rows = self.distances(features) if distances is None else distances, []
        for distance, far, inverted in zip(distances, self.is_far(distances), self.is_inverted(features), strict=True):
            reasons = ["black and white seem exchanged (inverted polarity)"] if inverted else []
            if far:
                reasons.append(f"unlike the training images (distance {distance:.2f}, at most {float(self.far):.2f})")
            rows.append(reasons)
        return rows

    def save(self) -> bytes:
        """The arrays as an .npz file, without pickles."""
        buffer = io.BytesIO()
        held = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        arrays: dict[str, Any] = {name: np.asarray(value, np.float32) for name, value in held.items()}
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def load(cls, file: Path) -> "OODDetector":
        """The inverse of `save`; a damaged file raises `CxrError`."""
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
                missing = {"validation"} - set(arrays)
                held = [f.name for f in fields(cls) if f.name not in missing]
                return cls(**{name: arrays[name].astype(np.float64) for name in held})
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise CxrError(f"{file}: cannot be read ({error}); register the model again") from None


def unit(features: ndarray) -> ndarray:
    """Features of shape (B, F) scaled to length 1, `float64`."""
    features = np.asarray(features, np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
