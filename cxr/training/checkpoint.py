"""The `last` checkpoint of a training: written whole or not at all, read without running any code in it."""

from pathlib import Path
from typing import Any

import torch

from cxr.common.files import write_atomic
from cxr.errors import CxrError

FORMAT = 1


def save(state: dict[str, Any], path: str | Path) -> None:
    """Write `state` (tensors and plain values) atomically; a full disk leaves an older checkpoint as it was."""
    write_atomic(path, lambda file: torch.save({"format": FORMAT, **state}, file))


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; what is missing, cut off or no checkpoint of ours raises `CxrError`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CxrError(f"checkpoint {path} does not exist; train anew, without resume") from None
    except Exception as error:  # torch raises many kinds for damaged files
        line = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise CxrError(f"checkpoint {path} is damaged ({line}); train anew, without resume") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CxrError(f"checkpoint {path} has format {found}, needed is {FORMAT}; train anew, without resume")
    return state
