"""The network behind OpenVINO, for versions that were proven to answer the same with it (`cxr.packaging.engine`).

OpenVINO is imported only when such a version is served or made; requirements-openvino.txt names it.
"""

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from cxr.errors import CxrError, in_short
from cxr.serving.session import OUTPUTS, VIEWS, at_once

_OPTIONS = {
    # By itself OpenVINO computes in bfloat16 where the processor can, which changes probabilities in the second digit.
    "INFERENCE_PRECISION_HINT": "f32",
    "NUM_STREAMS": "1",  # one call at a time, on all threads
    "ENABLE_CPU_PINNING": "NO",  # other threads decode on the same cores
    "CACHE_DIR": "",
}


class OpenVinoSession:
    """One network, warmed up and thread-safe; as `cxr.serving.session.Session`.

    Args:
        model: the ONNX file or its bytes.
        threads: threads of one call.
        size: side of the rasters, pixels.

    Raises:
        CxrError: OpenVINO is not installed, or cannot load the network.
    """

    def __init__(self, model: bytes | Path, threads: int, size: int):
        openvino = _imported()
        self._tensor, core = openvino.Tensor, openvino.Core()
        data = model if isinstance(model, bytes) else model.read_bytes()
        try:
            network = core.read_model(data)
            options = _OPTIONS | {"INFERENCE_NUM_THREADS": str(max(1, threads))}
            compiled = core.compile_model(network, "CPU", options)
        except Exception as error:  # OpenVINO raises plain RuntimeErrors of many lines
            raise CxrError(
                f"OpenVINO cannot load the network ({in_short(error)}); use serving.engine=onnxruntime"
            ) from None
        self._request = compiled.create_infer_request()
        self._outputs = [compiled.output(name) for name in OUTPUTS]
        info = ["framework", VIEWS]
        self._at_once = at_once(int(network.get_rt_info(info).astype(str)) if network.has_rt_info(info) else 1)
        self._lock = threading.Lock()
        self.run(np.zeros((1, size, size), np.uint8))

    def run(self, rasters: ndarray) -> tuple[ndarray, ndarray, ndarray]:
        """`uint8` (B, S, S) to logits (B, C), features (B, F) and maps (B, C or 0, h, w), all `float32`."""
        step = self._at_once or len(rasters)
        with self._lock:
            parts = [self._answer(rasters[start : start + step]) for start in range(0, len(rasters), step)]
        logits, features, maps = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        return logits, features, maps

    def _answer(self, rasters: ndarray) -> list[ndarray]:
        tensor = self._tensor(np.ascontiguousarray(rasters), shared_memory=True)  # named, to live through the call
        self._request.set_input_tensor(tensor)
        self._request.infer()
        # Copies: the next call writes to the same memory.
        return [np.array(self._request.get_tensor(output).data) for output in self._outputs]

    def logits(self, rasters: ndarray) -> ndarray:
        """`uint8` (B, S, S) to logits `float64` of shape (B, C), before any temperature."""
        return self.run(rasters)[0].astype(np.float64)


def is_installed() -> bool:
    """Whether OpenVINO can be imported."""
    try:
        _imported()
    except CxrError:
        return False
    return True


def _imported() -> Any:
    """The module `openvino`, without its telemetry.

    Its import would leave an ID in the user's folder and tell its maker; it does without where that package is absent.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise CxrError(
            "the version needs OpenVINO, which is not installed; pip install -r requirements-openvino.txt, or register "
            "it with serving.engine=onnxruntime"
        ) from None
    return openvino
