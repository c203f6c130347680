"""The last checkpoint of a training: written atomically, and loaded without executing any code in it."""

from pathlib import Path
from typing import Any

import torch

from cxr.common.files import write_atomic
from cxr.errors import CxrError

FORMAT = 1


def save(state: dict[str, Any], path: str | Path) -> None:
    """Write `state` (tensors and plain values) atomically; a full disk leaves an older checkpoint untouched."""
    write_atomic(path, lambda file: torch.save({"format": FORMAT, **state}, file))


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; raises `CxrError` if it is missing, truncated or not one of this program."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CxrError(f"checkpoint {path} does not exist; train from scratch, without resume") from None
    except Exception as error:  # torch raises many kinds for damaged files
        line = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise CxrError(f"checkpoint {path} is damaged ({line}); train from scratch, without resume") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        got = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CxrError(f"checkpoint {path}: expected format {FORMAT}, got {got}; train from scratch, without resume")
    return state
