"""The network behind ONNX Runtime: rasters in, logits, features and activation maps out."""

import threading
from pathlib import Path

import numpy as np
import onnxruntime
from numpy import ndarray

from cxr.errors import CxrError

INPUT = "rasters"
OUTPUTS = ("logits", "features", "maps")


class Session:
    """One network, warm and safe to call from several threads.

    Calls wait for each other: one call uses every thread it is given, and two at once would only get in each other's
    way.
    """

    def __init__(self, model: bytes | Path, threads: int, size: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = max(1, threads)
        options.inter_op_num_threads = 1
        # Threads that wait by spinning take the processor from those that decode pictures.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of a module of its own for each kind
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CxrError(f"the network cannot be loaded ({line}); register the model again") from None
        self._lock = threading.Lock()
        self.run(np.zeros((1, size, size), np.uint8))

    def run(self, rasters: ndarray) -> tuple[ndarray, ndarray, ndarray]:
        """`uint8` (B, S, S) to logits (B, C), features (B, F), maps (B, C or 0, h, w), `float32` each."""
        with self._lock:
            logits, features, maps = self._session.run(list(OUTPUTS), {INPUT: np.ascontiguousarray(rasters)})
        return logits, features, maps
