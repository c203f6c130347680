"""The network behind ONNX Runtime: rasters in; logits, features and class activation maps out."""

import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy import ndarray

from cxr.errors import CxrError

# ONNX Runtime would leave a device ID in the user's cache folder and report to its maker; it reads this when imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

INPUT = "rasters"
OUTPUTS = ("logits", "features", "maps")
VIEWS = "views"  # metadata of the file: views of each image that go through its network; absent if there is one
# Of several views, no more than those of a batch of single ones: 32 images of 6 views each would take 3 GB and three
# times as long an image (EfficientNet-Lite0 at 224 pixels, one core).
_VIEWS_AT_ONCE = 32


class RasterClassifier(Protocol):
    """A network that takes rasters as they come from an `ImageReader`: in torch, or as the ONNX session that is served.

    What is evaluated and what is served are compared through it.
    """

    def logits(self, rasters: ndarray) -> ndarray:
        """`uint8` rasters of shape (B, S, S) to logits `float64` of shape (B, C), before any temperature."""
        ...


class AnySession(ABC):
    """One network behind an engine, thread-safe; a `RasterClassifier`.

    Calls wait for each other: one call uses every thread the session has, and two at once would slow each other down.

    Args:
        views: of each image that go through the network.
        size: side of the rasters, pixels.
    """

    def __init__(self, views: int, size: int):
        self._at_once = None if views == 1 else max(1, _VIEWS_AT_ONCE // views)  # images; None: all of them
        self._lock = threading.Lock()
        self.run(np.zeros((1, size, size), np.uint8))

    @abstractmethod
    def _answer(self, rasters: ndarray) -> list[ndarray]:
        """`OUTPUTS` for rasters that lie in memory without gaps; one call at a time."""

    def run(self, rasters: ndarray) -> tuple[ndarray, ndarray, ndarray]:
        """`uint8` (B, S, S) to logits (B, C), features (B, F) and maps (B, C or 0, h, w), all `float32`."""
        step = self._at_once or len(rasters)
        with self._lock:
            parts = [
                self._answer(np.ascontiguousarray(rasters[start : start + step]))
                for start in range(0, len(rasters), step)
            ]
        logits, features, maps = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        return logits, features, maps

    def logits(self, rasters: ndarray) -> ndarray:
        """`uint8` (B, S, S) to logits `float64` of shape (B, C), before any temperature."""
        return self.run(rasters)[0].astype(np.float64)


class Session(AnySession):
    """One network behind ONNX Runtime, warmed up.

    Args:
        model: the ONNX file or its bytes.
        threads: threads of one call.
        size: side of the rasters, pixels.
    """

    def __init__(self, model: bytes | Path, threads: int, size: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, threads)
        options.inter_op_num_threads = 1
        # Threads that wait by spinning take the processor from those that decode images.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has an exception class of its own for each kind
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CxrError(f"the network cannot be loaded ({line}); register the model again") from None
        super().__init__(int(self._session.get_modelmeta().custom_metadata_map.get(VIEWS, 1)), size)

    def _answer(self, rasters: ndarray) -> list[ndarray]:
        return self._session.run(list(OUTPUTS), {INPUT: rasters})
