"""What the model should not answer on its own: pictures that are no plausible chest X-ray, or unlike all it has learnt.

Two looks. The picture itself: colour, size, shape, blankness, the white of a page. And the features that the network
has of it: how unlikely they are under a Gaussian with few main directions fitted on training images (probabilistic
PCA, M. Tipping and C. Bishop, 1999, as a distance for strangers: K. Lee et al., "A simple unified framework for
detecting out-of-distribution samples", NeurIPS 2018), and whether they are those of a negative. Thresholds come from
validation images (`cxr.packaging.fit_ood`).
"""

import io
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy import ndarray

from cxr.errors import CxrError
from cxr.imaging.decode import DecodedImage

MIN_SIDE = 64  # pixels; below, a thumbnail
MAX_ASPECT = 4.0  # longer side / shorter side; the widest of the 5,856 X-rays of the Kermany set has 3.4
MAX_COLOUR = 0.10  # mean difference between channels; scans of bluish film stay below
MIN_SPREAD = 8.0  # grey levels between the 5th and the 95th percentile
PAGE_WHITE, PAGE_SHARE = 235, 0.55  # a page is white in more than half of its area


@dataclass(frozen=True)
class OODDetector:
    """What was fitted.

    Attributes:
        mean: of the unit-length features of training images, of shape (F,).
        directions: main directions, of shape (K, F), each divided by the spread along it.
        rest: variance along each of the remaining directions, of shape ().
        far: distances above it are unlike training.
        probe: weights (F,) and, last, the bias of a linear score that is high for negatives.
        inverted: scores of the probe above it are a negative's.
    """

    mean: ndarray
    directions: ndarray
    rest: ndarray
    far: ndarray
    probe: ndarray
    inverted: ndarray

    def distances(self, features: ndarray) -> ndarray:
        """Mahalanobis distance from training under the fitted Gaussian, a value of shape (B,) per direction."""
        z = unit(features) - self.mean
        along = z @ self.directions.T
        spreads = np.sum(self.directions**2, 1)  # 1 / variance
        inside = np.sum(along**2 / spreads, 1)
        return (np.sum(along**2, 1) + np.maximum(np.sum(z**2, 1) - inside, 0) / self.rest) / z.shape[1]

    def negatives(self, features: ndarray) -> ndarray:
        """Scores of shape (B,), high for pictures with black and white exchanged."""
        return unit(features) @ self.probe[:-1] + self.probe[-1]

    def are_far(self, distances: ndarray) -> ndarray:
        """Whether each of `distances` (B,) is too far from training; what is not a number counts as far."""
        return ~(distances <= self.far)

    def are_negatives(self, features: ndarray) -> ndarray:
        """Whether each row of features (B, F) is a negative's, of shape (B,)."""
        return self.negatives(features) > self.inverted

    def strange(self, features: ndarray) -> list[list[str]]:
        """For each row of features (B, F), why the model should not be trusted with it; empty where it may."""
        distances, found = self.distances(features), []
        for distance, far, negative in zip(
            distances, self.are_far(distances), self.are_negatives(features), strict=True
        ):
            reasons = ["black and white seem exchanged (inverted polarity)"] if negative else []
            if far:
                reasons.append(f"unlike the training images (distance {distance:.2f}, at most {float(self.far):.2f})")
            found.append(reasons)
        return found

    def save(self) -> bytes:
        """The arrays as an .npz file, without pickles."""
        buffer = io.BytesIO()
        np.savez(buffer, **{f.name: np.asarray(getattr(self, f.name), np.float32) for f in fields(self)})
        return buffer.getvalue()

    @classmethod
    def load(cls, file: Path) -> "OODDetector":
        """The inverse of `save`; a damaged file raises `CxrError`."""
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
                return cls(**{f.name: arrays[f.name].astype(np.float64) for f in fields(cls)})
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise CxrError(f"{file}: cannot be read ({error}); register the model again") from None


def unit(features: ndarray) -> ndarray:
    """Features of shape (B, F) scaled to length 1, `float64`."""
    features = np.asarray(features, np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def implausible(picture: DecodedImage) -> list[str]:
    """Why a picture is no plausible chest X-ray at first sight; empty where it may be one."""
    grey, reasons = picture.grey, []
    short, long = sorted(grey.shape)
    if short < MIN_SIDE:
        reasons.append(f"too small ({grey.shape[1]} x {grey.shape[0]} pixels, each side needs {MIN_SIDE})")
    if long > MAX_ASPECT * short:
        reasons.append(f"extreme shape ({grey.shape[1]} x {grey.shape[0]} pixels)")
    if picture.colour > MAX_COLOUR:
        reasons.append("a colour picture")
    looked = grey[:: max(1, grey.shape[0] // 256), :: max(1, grey.shape[1] // 256)]
    low, high = np.percentile(looked, (5, 95))
    if high - low < MIN_SPREAD:
        reasons.append("blank")
    elif np.mean(looked >= PAGE_WHITE) > PAGE_SHARE:
        reasons.append("mostly white, like a page")
    return reasons
