"""The network behind OpenVINO, for versions that were proven to answer the same with it (`cxr.packaging.engine`).

OpenVINO is imported only when such a version is served or made; requirements-openvino.txt names it.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from cxr.errors import CxrError, in_short
from cxr.serving.session import OUTPUTS, VIEWS, AnySession

_OPTIONS = {
    # By itself OpenVINO computes in bfloat16 where the processor can, which changes probabilities in the second digit.
    "INFERENCE_PRECISION_HINT": "f32",
    "NUM_STREAMS": "1",  # one call at a time, on all threads
    "ENABLE_CPU_PINNING": "NO",  # other threads decode on the same cores
    "CACHE_DIR": "",
}


class OpenVinoSession(AnySession):
    """One network behind OpenVINO, warmed up.

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
        super().__init__(int(network.get_rt_info(info).astype(str)) if network.has_rt_info(info) else 1, size)

    def _answer(self, rasters: ndarray) -> list[ndarray]:
        tensor = self._tensor(rasters, shared_memory=True)  # named, to live through the call
        self._request.set_input_tensor(tensor)
        self._request.infer()
        # Copies: the next call writes to the same memory.
        return [np.array(self._request.get_tensor(output).data) for output in self._outputs]


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
