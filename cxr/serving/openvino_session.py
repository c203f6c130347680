"""The network behind OpenVINO, for versions that were proven to answer the same with it (`cxr.packaging.engine`).

OpenVINO is imported only when such a version is served or made; requirements-openvino.txt names it.
"""

import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy import ndarray

from cxr.errors import CxrError, in_short
from cxr.serving.session import OUTPUTS, AnySession

_OPTIONS = {
    # By itself OpenVINO computes in bfloat16 where the processor can, which changes probabilities in the second digit.
    "INFERENCE_PRECISION_HINT": "f32",
    "ENABLE_CPU_PINNING": "NO",  # other threads decode on the same cores
    "CACHE_DIR": "",
}


class OpenVinoSession(AnySession):
    """One network behind OpenVINO.

    Args:
        model: the ONNX file or its bytes.
        threads: cores it may use.
        size: side of the rasters, pixels.

    Raises:
        CxrError: OpenVINO is not installed, or cannot load the network.
    """

    def __init__(self, model: bytes | Path, threads: int, size: int):
        openvino = _imported()
        self._tensor, core, threads = openvino.Tensor, openvino.Core(), max(1, threads)
        data = model if isinstance(model, bytes) else model.read_bytes()
        try:
            network = core.read_model(data)
            # By the threads of a call: as many calls at once as there are cores for.
            self._requests = {number: _requests(core, network, number, threads // number) for number in {1, threads}}
        except Exception as error:  # OpenVINO raises plain RuntimeErrors of many lines
            raise CxrError(
                f"OpenVINO cannot load the network ({in_short(error)}); use serving.engine=onnxruntime"
            ) from None
        super().__init__(threads, size)

    def _answer(self, raster: ndarray, threads: int) -> list[ndarray]:
        tensor = self._tensor(raster, shared_memory=True)  # named, to live through the call
        request = self._requests[threads].get()
        try:
            request.set_input_tensor(tensor)
            request.infer()
            # Copies: the next call writes to the same memory.
            return [np.array(request.get_tensor(name).data) for name in OUTPUTS]
        finally:
            self._requests[threads].put(request)


def _requests(core: Any, network: Any, threads: int, at_once: int) -> SimpleQueue:
    """Requests of OpenVINO, one for each call at once, that wait to be used."""
    options = {"NUM_STREAMS": str(at_once), "INFERENCE_NUM_THREADS": str(threads * at_once)}
    compiled, waiting = core.compile_model(network, "CPU", _OPTIONS | options), SimpleQueue[Any]()
    for _ in range(at_once):
        waiting.put(compiled.create_infer_request())
    return waiting


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
