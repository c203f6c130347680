"""The band around each threshold in which the served model refers an image to a person, chosen on validation.

The images nearest to the threshold, in log-odds, are referred first, so that a band is as far from its threshold at
both ends. How many are referred follows from one of two settings:

- `serving.refer_share`: the widest band that refers at most this share of the validation images;
- `serving.risk`: the narrowest band outside of which at most this share of the validation images are decided wrongly.

The trade of coverage for risk is that of selective classification: Y. Geifman, R. El-Yaniv, "Selective classification
for deep neural networks" (NeurIPS 2017), and C. K. Chow (see `cxr.serving.decision`). Unlike theirs, the limit on the
risk holds on validation itself, without a margin for chance: the report shows what it became on the test split.

Only probabilities and labels count here. What the model refers for other reasons, such as images unlike the training
images, comes on top.
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from cxr.errors import CxrError
from cxr.serving import decision
from cxr.serving.decision import Band
from cxr.serving.probabilities import in_digits
from cxr.settings.serving import ServingSettings

log = logging.getLogger(__name__)
_DECIMALS = 9  # of a distance in log-odds
_ROUNDING = 1e-9  # 0.29 * 100 is 28.999999999999996


@dataclass(frozen=True)
class Bands:
    """All bands around a threshold that differ in what they refer of n images, the narrowest first, which refers none.

    Attributes:
        ends: lower and upper end of each, of shape (K, 2).
        referred: number of images that each refers, of shape (K,).
        mistakes: number of wrong decisions among the others, of shape (K,).
        images: n.
    """

    ends: ndarray
    referred: ndarray
    mistakes: ndarray
    images: int

    @classmethod
    def of(cls, truth: ndarray, score: ndarray, threshold: float) -> "Bands":
        """The bands for `truth` (bool) and `score`, the probability of the finding, both of shape (n,).

        They end halfway between neighbours, as thresholds do. Images at the same distance are referred together.
        """
        # Those of 0.01 and 0.99 from 0.5 are equal, and differ in the last bit on some CPUs.
        distances = np.unique(np.round(decision.distance(score, threshold), _DECIMALS))
        distances = distances[np.isfinite(distances)]
        widths = [[0.0], (distances[1:] + distances[:-1]) / 2, distances[-1:] + 1]  # the last one refers all of them
        ends = decision.bands_around(threshold, np.concatenate(widths))
        order = np.argsort(score, kind="stable")
        wrong = (decision.is_positive(score, threshold) != truth)[order]
        below = np.concatenate([[0], np.cumsum(wrong)])
        # Counted by the ends, as the service will, so that rounding cannot break the limit.
        first, last = np.searchsorted(score[order], ends.T, side="left")
        return cls(ends, last - first, below[-1] - (below[last] - below[first]), len(score))

    @property
    def risk(self) -> ndarray:
        """Share of wrong decisions among the images that each band does not refer, of shape (K,); NaN without any."""
        left = self.images - self.referred
        return np.where(left > 0, self.mistakes / np.maximum(left, 1), np.nan)

    def within(self, share: float) -> int:
        """Index of the widest band that refers at most this share of the images."""
        return int(np.flatnonzero(self.referred <= share * self.images + _ROUNDING)[-1])

    def reaching(self, risk: float) -> int | None:
        """Index of the narrowest band with at most this risk; None if there is none."""
        reached = np.flatnonzero(self.risk <= risk + _ROUNDING)
        return int(reached[0]) if len(reached) else None


def choose(truth: ndarray, score: ndarray, points: dict[str, float], settings: ServingSettings) -> dict[str, Band]:
    """The band of each operating point, for validation images.

    Args:
        truth: whether each image has the finding, bool of shape (n,).
        score: probability of the finding, of shape (n,).
        points: thresholds by name.
        settings: by which rule, and its limit.

    Raises:
        CxrError: no band reaches the risk.
    """
    chosen, shown, (rule, limit) = {}, [], settings.rule
    for name, threshold in points.items():
        bands = Bands.of(truth, score, threshold)
        index = _reaching(bands, name, limit) if rule == "risk" else bands.within(limit)
        low, high = bands.ends[index].tolist()
        chosen[name] = low, high
        refers, leaves = f"{bands.referred[index] / bands.images:.1%}", f"{bands.risk[index]:.1%}"
        ends = f"{in_digits(low)} to {in_digits(high)}"
        shown.append(f"{name} {ends} refers {refers} and leaves {leaves} wrong of {bands.risk[0]:.1%}")
    log.info("bands of referral, on %d validation images: %s", len(score), "; ".join(shown))
    if rule == "refer_share" and 0 < limit * len(score) < 1 - _ROUNDING:
        log.warning(
            "serving.refer_share=%g of %d validation images is less than one image: none is referred as undecided",
            *(limit, len(score)),
        )
    return chosen


def _reaching(bands: Bands, name: str, risk: float) -> int:
    index = bands.reaching(risk)
    if index is None:
        best = int(np.nanargmin(bands.risk))
        raise CxrError(
            f"serving.risk={risk:g}: no band around the threshold of {name} leaves so few wrong on validation; the "
            f"least is {bands.risk[best]:.3g}, with {bands.referred[best] / bands.images:.1%} of the images referred. "
            "Give a larger serving.risk, or serving.refer_share instead"
        )
    return index
