"""Clocks of a service at work: whoever watches it is told how long its parts take."""

from collections.abc import Callable
from dataclasses import dataclass


def _nobody(_: float) -> None:
    return None


@dataclass
class Watch:
    """Who is told of seconds, from any thread.

    Attributes:
        decoding: told of each picture, from its cell to its raster, the wait for a core included.
        network: told of each call of the network, the wait for other calls included.
    """

    decoding: Callable[[float], None] = _nobody
    network: Callable[[float], None] = _nobody
