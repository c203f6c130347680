"""Pretrained weights: where they come from, the input they were tested with, and how they are put into a network."""

import logging
import pickle  # nosec B403  # for the name of its error; what is read is read with weights_only
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from cxr.errors import CxrError
from cxr.imaging.preprocess import InputSpec
from cxr.models import efficientnet_lite, timm_models
from cxr.models.timm_models import SCRATCH

log = logging.getLogger(__name__)

# In files of weights but not in our networks: heads that googlenet and inception have in their training only, and the
# operating points of torchxrayvision.
_NOT_OURS = ("aux1.", "aux2.", "AuxLogits.", "op_threshs")


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
    if timm_models.owns(name):
        return timm_models.input_spec(name)
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
    """The state dict that `weights` (`imagenet`, `none` or a file) stands for; None for `none`.

    ImageNet weights of a network of timm come with the network: `timm_models.build`.
    """
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
        raise CxrError(
            f"model.weights={file}: no such file; expected imagenet, none, or a state dict (.pth or .safetensors)"
        )


def read(file: Path) -> dict[str, Tensor]:
    """A state dict from a file (.pth or .safetensors), read without running any code in it."""
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


def load(module: nn.Module, state: dict[str, Tensor], head: str, name: str, weights: str) -> bool:
    """Load all weights but those of the head; anything missing or of another shape is an error.

    `name` and `weights` are the settings that `module` and `state` came from.

    Returns:
        Whether the weights see one channel: their first convolution is then spread over the three of `module`, which
        answers to three equal channels as theirs to one.
    """
    what = f"{name}, model.weights={weights}"
    remedy = f"give weights of {name}, or set model.name to the network they were made for"
    wanted = {k: v for k, v in module.state_dict().items() if not k.startswith(head + ".")}
    given = {k: v for k, v in state.items() if not k.startswith((head + ".", *_NOT_OURS))}
    for keys, problem in ((wanted.keys() - given.keys(), "missing"), (given.keys() - wanted.keys(), "unexpected")):
        names = sorted(k for k in keys if not k.endswith("num_batches_tracked"))
        if names:
            examples = ", ".join(names[:3])
            raise CxrError(
                f"{what}: weights of another architecture ({len(names)} {problem}, e.g. {examples}); {remedy}"
            )
    first = _of_one_channel(wanted, given)
    if first is not None:
        given[first] = given[first].expand_as(wanted[first]) / 3
    wrong = [k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape]
    if wrong:
        k = sorted(wrong)[0]
        raise CxrError(f"{what}: expected {k} of shape {tuple(wanted[k].shape)}, got {tuple(given[k].shape)}; {remedy}")
    module.load_state_dict(given, strict=False)
    if first is not None:
        log.info("%s: %s sees one channel; spread over three equal ones, each with a third of its weights", what, first)
    return first is not None


def equal_channels(spec: InputSpec) -> InputSpec:
    """The spec with the mean of its channels in all of them."""
    return replace(spec, mean=(sum(spec.mean) / 3,) * 3, std=(sum(spec.std) / 3,) * 3)


def of_range(spec: InputSpec, low: float, high: float) -> InputSpec:
    """The spec with pixels scaled from black at `low` to white at `high`, in all channels."""
    return replace(spec, mean=(-low / (high - low),) * 3, std=(1 / (high - low),) * 3)


def _of_one_channel(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> str | None:
    """The first convolution, if it sees three channels in `wanted` and one in `given`."""
    for name, weight in wanted.items():
        if weight.dim() == 4 and name in given:
            rows, channels, *kernel = weight.shape
            return name if channels == 3 and given[name].shape == (rows, 1, *kernel) else None
    return None


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
