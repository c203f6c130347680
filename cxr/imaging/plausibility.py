"""Whether an image is a plausible chest X-ray at first sight: its colour, size, shape, blankness and whiteness."""

import numpy as np

from cxr.imaging.decode import DecodedImage

MIN_SIDE = 64  # pixels; anything smaller is a thumbnail
MAX_ASPECT = 4.0  # longer side / shorter side; the widest of the 5,856 X-rays of the Kermany set has 3.4
MAX_COLOUR = 0.10  # mean difference between channels; scans of bluish film stay below
MIN_SPREAD = 8.0  # grey levels between the 5th and the 95th percentile
PAGE_WHITE, PAGE_SHARE = 235, 0.55  # a page is white over more than half of its area


def implausible(image: DecodedImage) -> list[str]:
    """Reasons why an image is not a plausible chest X-ray; empty if it may be one."""
    grey, reasons = image.grey, []
    height, width = grey.shape
    short, long = sorted(grey.shape)
    if short < MIN_SIDE:
        reasons.append(f"too small ({width} x {height} pixels, each side needs {MIN_SIDE})")
    if long > MAX_ASPECT * short:
        reasons.append(f"extreme shape ({width} x {height} pixels)")
    if image.colour > MAX_COLOUR:
        reasons.append("a colour picture")
    sample = grey[:: max(1, height // 256), :: max(1, width // 256)]
    low, high = np.percentile(sample, (5, 95))
    if high - low < MIN_SPREAD:
        reasons.append("blank")
    elif np.mean(sample >= PAGE_WHITE) > PAGE_SHARE:
        reasons.append("mostly white, like a page")
    return reasons
