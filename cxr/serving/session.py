"""The network behind ONNX Runtime: rasters in; logits, features and class activation maps out."""

import os
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy import ndarray

from cxr.errors import CxrError
from cxr.serving.budget import Cores

# ONNX Runtime would leave a device ID in the user's cache folder and report to its maker; it reads this when imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

INPUT = "rasters"
OUTPUTS = ("logits", "features", "maps")


class RasterClassifier(Protocol):
    """A network that takes rasters as they come from an `ImageReader`: in torch, or as the ONNX session that is served.

    What is evaluated and what is served are compared through it.
    """

    def logits(self, rasters: ndarray) -> ndarray:
        """`uint8` rasters of shape (B, S, S) to logits `float64` of shape (B, C), before any temperature."""
        ...


class AnySession(ABC):
    """One network behind an engine, warmed up and thread-safe; a `RasterClassifier`.

    Each image goes through the network by itself, so that its answer depends on no other: one alone on every core,
    several beside each other on one core each.

    Args:
        threads: cores it may use.
        size: side of the rasters, pixels.

    Attributes:
        cores: those it uses; what decodes images beside it takes its cores from them.
    """

    def __init__(self, threads: int, size: int):
        self.cores = Cores(threads)
        for number in {1, self.cores.number}:
            self._answer(np.zeros((1, size, size), np.uint8), number)

    @abstractmethod
    def _answer(self, raster: ndarray, threads: int) -> list[ndarray]:
        """`OUTPUTS` for one raster, (1, S, S), that lies in memory without gaps, by one thread or by every one.

        As many calls at once as `threads` leaves cores for.
        """

    def run(self, rasters: ndarray) -> tuple[ndarray, ndarray, ndarray]:
        """`uint8` (B, S, S) to logits (B, C), features (B, F) and maps (B, C or 0, h, w), all `float32`."""
        images = [np.ascontiguousarray(raster[None]) for raster in rasters]
        if len(images) == 1:
            with self.cores.all_or_one() as taken:
                parts = [self._answer(images[0], taken)]
        else:
            with ThreadPoolExecutor(self.cores.number, thread_name_prefix="network") as pool:
                parts = list(pool.map(self._answer_beside_others, images))
        logits, features, maps = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        return logits, features, maps

    def _answer_beside_others(self, raster: ndarray) -> list[ndarray]:
        with self.cores.one():
            return self._answer(raster, 1)

    def logits(self, rasters: ndarray) -> ndarray:
        """`uint8` (B, S, S) to logits `float64` of shape (B, C), before any temperature."""
        return self.run(rasters)[0].astype(np.float64)


class Session(AnySession):
    """One network behind ONNX Runtime.

    Args:
        model: the ONNX file or its bytes.
        threads: cores it may use.
        size: side of the rasters, pixels.

    Raises:
        CxrError: the network cannot be loaded.
    """

    def __init__(self, model: bytes | Path, threads: int, size: int):
        # How many threads a call has is a matter of the session of ONNX Runtime: one for each number.
        self._by_threads = {number: _loaded(model, number) for number in {1, max(1, threads)}}
        super().__init__(threads, size)

    def _answer(self, raster: ndarray, threads: int) -> list[ndarray]:
        return self._by_threads[threads].run(list(OUTPUTS), {INPUT: raster})


def _loaded(model: bytes | Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait by spinning take the processor from those that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has an exception class of its own for each kind
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CxrError(f"the network cannot be loaded ({line}); register the model again") from None
