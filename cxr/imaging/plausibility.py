"""Plausibility of an image as a chest X-ray, by its size, shape, colour, contrast and whiteness."""

import numpy as np

from cxr.imaging.decode import DecodedImage

MIN_SIDE = 64  # pixels; anything smaller is a thumbnail
MAX_ASPECT = 4.0  # longer side / shorter side; the maximum of the 5,856 X-rays of the Kermany dataset is 3.4
MAX_COLOUR = 0.10  # mean difference between channels, 0..1; scans of bluish film stay below
MIN_SPREAD = 8.0  # grey levels between the 5th and the 95th percentile
PAGE_WHITE = 235  # grey level from which a pixel counts as white
PAGE_SHARE = 0.55  # share of white pixels above which an image looks like a printed page


def implausible(image: DecodedImage) -> list[str]:
    """List the reasons why an image is not a plausible chest X-ray; empty if it may be one."""
    reasons = []
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        reasons.append(f"too small ({width} x {height} pixels, at least {MIN_SIDE} x {MIN_SIDE} expected)")
    if max(width, height) > MAX_ASPECT * min(width, height):
        reasons.append(f"extreme aspect ratio ({width} x {height} pixels)")
    if image.colour > MAX_COLOUR:
        reasons.append("a colour image")
    rows, across = image.grey.shape
    sample = image.grey[:: max(1, rows // 256), :: max(1, across // 256)]
    # A count by level: several times as fast as sorting, and this runs for every image.
    shares = np.cumsum(np.bincount(sample.ravel(), minlength=256)) / sample.size
    low, high = np.searchsorted(shares, (0.05, 0.95))
    if high - low < MIN_SPREAD:
        reasons.append("blank")
    elif 1 - shares[PAGE_WHITE - 1] > PAGE_SHARE:
        reasons.append("mostly white, like a page")
    return reasons
