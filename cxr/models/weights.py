"""Pretrained weights: where they come from, and the input they were tested with."""

import pickle  # nosec B403  # for the name of its error; what is read is read with weights_only
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor
from torchvision.models import WeightsEnum

from cxr.errors import CxrError
from cxr.imaging.preprocess import InputSpec
from cxr.models import efficientnet_lite

SCRATCH = "model.weights=none trains from scratch"


def default(name: str) -> WeightsEnum | None:
    """Torchvision's best ImageNet weights for an architecture; None where it has none."""
    try:
        return torchvision.models.get_model_weights(name).DEFAULT
    except (ValueError, AttributeError):
        return None


def input_spec(name: str) -> InputSpec:
    """The input that the architecture's ImageNet weights were tested with, whatever weights are loaded."""
    if name in efficientnet_lite.VARIANTS:
        return efficientnet_lite.input_spec(name)
    entry = default(name)
    if entry is None:
        return InputSpec(size=224, resize=256)
    preset = entry.transforms()
    return InputSpec(
        size=preset.crop_size[0],
        resize=max(preset.resize_size[0], preset.crop_size[0]),
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def state(name: str, weights: str) -> dict[str, Tensor] | None:
    """The state dict that `weights` (`imagenet`, `none` or a file) stands for; None for `none`."""
    if weights == "none":
        return None
    if weights != "imagenet":
        return read(Path(weights).expanduser())
    if name in efficientnet_lite.VARIANTS:
        return efficientnet_lite.imagenet_state(name)
    entry = default(name)
    if entry is None:
        raise CxrError(f"torchvision has no ImageNet weights for {name}; give -P model.weights=FILE.pth, or {SCRATCH}")
    return _downloaded(entry)


def check(weights: str) -> None:
    """Raise `CxrError` if `weights` (`imagenet`, `none` or a file) names a file that does not exist."""
    file = Path(weights).expanduser()
    if weights not in ("imagenet", "none") and not file.is_file():
        raise CxrError(f"model.weights={file}: no such file; expected imagenet, none, or a state dict (.pth)")


def read(file: Path) -> dict[str, Tensor]:
    """A state dict from a file, read without running any code in it."""
    check(str(file))
    try:
        loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CxrError(
            f"{file} is damaged or holds more than tensors; save the state dict alone: "
            "torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:  # torch raises many kinds for damaged files
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise CxrError(f"{file} is damaged or not a file of weights ({line}); download or save it again") from None
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CxrError(f"{file} is not a state dict; save the state dict alone: torch.save(model.state_dict(), FILE)")
    return loaded


def _downloaded(entry: WeightsEnum) -> dict[str, Tensor]:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    target = folder / Path(urlparse(entry.url).path).name
    remedy = f"put the file at {target}, or give -P model.weights=FILE.pth; {SCRATCH}"
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except RuntimeError as error:
        if "hash" in str(error):
            raise CxrError(f"{entry.url}: the download is damaged ({error}); try again, or {remedy}") from None
        raise CxrError(f"{target} is damaged ({str(error).splitlines()[0]}); delete it, or {remedy}") from None
    except (URLError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise CxrError(f"{entry.url} could not be downloaded ({error}); {remedy}") from None
