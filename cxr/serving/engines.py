"""The engines that a network can be served with, by name."""

from pathlib import Path

from cxr.common.names import ONNXRUNTIME, OPENVINO
from cxr.errors import CxrError
from cxr.serving.openvino_session import OpenVinoSession
from cxr.serving.session import AnySession, Session

_SESSIONS: dict[str, type[Session] | type[OpenVinoSession]] = {ONNXRUNTIME: Session, OPENVINO: OpenVinoSession}


def open_session(engine: str, model: bytes | Path, threads: int, size: int) -> AnySession:
    """The network in `model`, an ONNX file or its bytes, behind an engine; see `Session`.

    Raises:
        CxrError: the engine is unknown or not installed, or cannot load the network.
    """
    if engine not in _SESSIONS:
        raise CxrError(f"serving engine {engine!r}; this version knows {', '.join(_SESSIONS)}")
    return _SESSIONS[engine](model, threads, size)
