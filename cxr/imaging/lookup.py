"""Tables that are looked up for every pixel, in bands of rows.

numpy copies indices to eight bytes each; for a whole image of 50 megapixels that would be 400 MB.
"""

from collections.abc import Iterator

import numpy as np
from numpy import ndarray

_BAND = 1 << 20  # pixels


def bands(pixels: ndarray) -> Iterator[slice]:
    """Slices of rows of an array (H, W) that together are the whole of it."""
    height, width = pixels.shape
    step = max(1, _BAND // max(1, width))
    for top in range(0, height, step):
        yield slice(top, top + step)


def looked_up(table: ndarray, indices: ndarray) -> ndarray:
    """`table[indices]` for a table (N,) and unsigned indices (H, W): of shape (H, W), in the type of the table."""
    result = np.empty(indices.shape, table.dtype)
    for rows in bands(indices):
        result[rows] = table[indices[rows]]
    return result
