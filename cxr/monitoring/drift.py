"""Distances between the answers of two times, and what chance alone makes of them.

The population stability index (PSI) of two sets of shares r and s is the sum of (s - r) ln(s / r) over the bins; 0.1 is
usually called a small change and 0.25 a large one (N. Siddiqi, "Credit Risk Scorecards", 2006). It is biased upwards in
small samples: of m and n images from one source it is about (1/m + 1/n) times a chi-square with one degree of freedom
fewer than bins (B. Yurdakul, J. Naranjo, "Statistical properties of the population stability index", Journal of Risk
Model Validation 14, 2020). That holds for large bins, so that here the distribution under no change is simulated.

Images of one patient are alike, so that shares vary more than those of as many independent images: by the design effect
(J. N. K. Rao, A. J. Scott, Journal of the American Statistical Association 76, 1981), by which numbers of images are
divided where chance is concerned.
"""

from functools import lru_cache

import numpy as np
from numpy import ndarray
from scipy.stats import betabinom, kstwo

LEVELS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of the reference, between bins
LEAST = 5  # images of the reference in a bin, so that small references have fewer bins
_SHARED = 0.05  # share of the reference with one value from which this value has a bin of its own
SMOOTHING = 0.5  # images added to every bin before shares are taken: an empty bin would make the index infinite
DRAWS = 20_000
TAIL = (0.01, 0.001)  # chances whose quantiles are simulated; between and below, in the logarithm of the chance
_STEPS = 16  # simulated numbers of images per doubling


def edges(reference: ndarray, images: int) -> ndarray:
    """Upper ends of all bins but the last, rising, from sorted values of a reference of so many images.

    A value that many images share gets a bin of its own.
    """
    kept: list[float] = []
    for level in LEVELS:
        if (level - (kept[-1] if kept else 0)) * images >= LEAST:
            kept.append(level)
    while kept and (1 - kept[-1]) * images < LEAST:
        kept.pop()
    ends = np.quantile(reference, kept, method="inverted_cdf")
    alike = np.searchsorted(reference, ends, "right") - np.searchsorted(reference, ends)
    shared = ends[alike > max(1, _SHARED * len(reference))]
    return np.unique(np.concatenate([ends, np.nextafter(shared, -np.inf)]))


def counts(values: ndarray, ends: ndarray) -> ndarray:
    """Number of values in each bin, of shape (bins,); a bin includes its upper end."""
    return np.bincount(np.searchsorted(ends, values, "left"), minlength=len(ends) + 1)


def psi(reference: ndarray, counted: ndarray) -> float:
    """Population stability index of counts by bin, both of shape (bins,)."""
    return float(_psi(_smoothed(reference), _smoothed(counted)))


def psi_by_chance(reference: ndarray, images: float, chance: float) -> float:
    """The index that images from the source of the reference exceed with probability `chance`.

    Args:
        reference: number of images by bin, of shape (bins,), divided by the design effect.
        images: their number, divided by the design effect.
        chance: from above 0 to 0.01; below 0.001, the tail is continued as an exponential, a little longer than
            that of a chi-square.
    """
    if len(reference) < 2:
        return 0.0
    return float(continued(_quantiles(tuple(np.round(reference, 3)), simulated(images)), chance))


def simulated(images: float) -> int:
    """The number of images that a simulation of so many draws.

    Rounded down, so that windows of nearly as many images share a simulation; chance makes more of fewer images.
    """
    return max(1, int(2 ** (np.floor(np.log2(max(1.0, images)) * _STEPS) / _STEPS)))


def continued(quantiles: ndarray, chance: float) -> ndarray:
    """What is exceeded with probability `chance`, from the quantiles `TAIL`, of shape (2, ...)."""
    at, beyond = quantiles
    return at + (beyond - at) * max(0.0, np.log(TAIL[0] / chance) / np.log(TAIL[0] / TAIL[1]))


@lru_cache(maxsize=4096)
def _quantiles(reference: tuple[float, ...], images: int) -> ndarray:
    """Upper quantiles `TAIL` of the index under no change, of shape (2,).

    Between quantiles of a sample lie shares of its source that have a Dirichlet distribution, whatever the source is.
    """
    known = np.array(reference)
    rng = np.random.default_rng([images, len(known)])
    shares = rng.dirichlet(known + SMOOTHING, DRAWS)
    drawn = rng.multinomial(images, shares)
    found = _psi(_smoothed(known), _smoothed(drawn))
    return np.quantile(found, 1 - np.array(TAIL))


def ks(reference: ndarray, values: ndarray) -> float:
    """Kolmogorov-Smirnov distance: the largest difference of the shares below any value; both sorted."""
    points = np.concatenate([reference, values])
    below = [np.searchsorted(sample, points, "right") / len(sample) for sample in (reference, values)]
    return float(np.abs(below[0] - below[1]).max())


def ks_by_chance(reference: float, images: float, chance: float) -> float:
    """The distance that two samples of so many images of one source exceed with probability `chance`, or less."""
    together = max(1.0, reference * images / (reference + images))
    return float(kstwo.isf(chance, max(1, int(together))))


def share_by_chance(referred: float, reference: float, images: float, chance: float) -> float:
    """The share that images from the source of the reference exceed with probability `chance`, at most.

    It is that of a beta-binomial: `referred` of `reference` images and half an image more on either side say what the
    share of the source may be (Jeffreys' prior).
    """
    size = max(1, int(images))
    share = (referred + SMOOTHING, max(0.0, reference - referred) + SMOOTHING)
    return float(betabinom.isf(chance, size, *share) / size)


def design_effect(bins: ndarray, patients: ndarray) -> float:
    """How much more shares of images vary than those of independent images, 1 at least.

    The mean over bins of the design effects of their shares, as of Rao and Scott's first-order correction.

    Args:
        bins: the bin of each image, from 0, of shape (n,).
        patients: names of the patients, of shape (n,).
    """
    images, size = len(bins), int(bins.max()) + 1
    _, patient = np.unique(patients, return_inverse=True)
    inside = np.zeros((images, size))
    inside[np.arange(images), bins] = 1
    shares = inside.mean(0)
    sums = np.zeros((int(patient.max()) + 1, size))
    np.add.at(sums, patient, inside - shares)
    used = (shares > 0) & (shares < 1)
    if not used.any():
        return 1.0
    effects = (sums[:, used] ** 2).sum(0) / (images * shares[used] * (1 - shares[used]))
    weights = 1 - shares[used]
    return float(max(1.0, (weights * effects).sum() / weights.sum()))


def _smoothed(counted: ndarray) -> ndarray:
    """Shares of counts of shape (..., bins)."""
    counted = np.asarray(counted, np.float64) + SMOOTHING
    return counted / counted.sum(-1, keepdims=True)


def _psi(reference: ndarray, shares: ndarray) -> ndarray:
    return ((shares - reference) * np.log(shares / reference)).sum(-1)
