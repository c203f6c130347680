"""Networks of timm (R. Wightman, "PyTorch Image Models"), as `model.name=timm/NAME`.

NAME is a name of `timm.list_models()`, with or without the tag of its weights: `timm/convnextv2_atto`,
`timm/vit_small_patch14_dinov2.lvd142m`. timm is imported only if such a network is asked for.
"""

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from cxr.errors import CxrError, in_short
from cxr.imaging.preprocess import InputSpec

log = logging.getLogger(__name__)

PREFIX = "timm/"
SCRATCH = "model.weights=none trains from scratch"


def owns(name: str) -> bool:
    """Whether `name` is of a network of timm."""
    return name.startswith(PREFIX)


def check(name: str) -> None:
    """Raise `CxrError` if timm is not installed or has no such network; nothing is built or downloaded."""
    timm, own = _timm(name), name.removeprefix(PREFIX)
    architecture, _, tag = own.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.4)
        similar = ", ".join(PREFIX + other for other in near) or "see timm.list_models()"
        raise CxrError(f"model.name={name}: timm has no such architecture; similar: {similar}")
    tags = timm.models.list_pretrained(f"{architecture}.*")
    if tag and own not in tags:
        known = ", ".join(PREFIX + other for other in tags) or "none"
        raise CxrError(f"model.name={name}: timm has no such weights; its weights for {architecture}: {known}")


def input_spec(name: str) -> InputSpec:
    """The input that the weights of `name` were tested with, from their data configuration.

    Of a network that takes images of one size alone, such as most transformers, it is that of its training.
    """
    values = _data_config(name)
    channels, height, width = values["input_size"]
    if channels != 3 or height != width:
        raise CxrError(
            f"model.name={name}: its input is {channels} x {height} x {width}; only squares of three channels are "
            "possible, choose another architecture"
        )
    return InputSpec(
        size=height,
        resize=max(height, int(height / values["crop_pct"])),  # as timm.data.create_transform
        interpolation=values["interpolation"],
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
    )


def build(name: str, size: int, *, pretrained: bool) -> nn.Module:
    """The network for squares of `size` pixels, with the weights that timm downloads or with random ones.

    Its head has some number of outputs and is there to be replaced.

    Raises:
        CxrError: the weights cannot be downloaded, there are none, or the network cannot be built for this size.
    """
    timm, own = _timm(name), name.removeprefix(PREFIX)
    config = _config(name)
    remedy = f"give -P model.weights=FILE (.safetensors or .pth); {SCRATCH}"
    if pretrained and not (config and config.has_weights):
        raise CxrError(f"timm has no weights for {own}; {remedy}")
    extra: dict[str, Any] = {"img_size": size} if config and config.fixed_input_size else {}
    try:
        with torch.device("meta" if pretrained else "cpu"):  # a trial without memory or random numbers, or the network
            module = timm.create_model(own, num_classes=1, **extra)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise CxrError(f"model.name={name} cannot be built at input size {size}: {in_short(error)}") from None
    _check_patches(name, module, size)
    if pretrained:
        where = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        log.info("%s: loading the weights of %s", name, where)
        try:
            with _retrying_in_silence():
                module = timm.create_model(own, num_classes=1, pretrained=True, **extra)
        except Exception as error:  # the hub, its client and every network in between raise kinds of their own
            cause = in_short(_innermost(error))
            raise CxrError(f"{name}: {where} could not be downloaded ({cause}); {remedy}") from None
    return module


def head(name: str, module: nn.Module) -> str:
    """Qualified name of the layer that gives the logits; raises `CxrError` if there are several, or none."""
    classifier: Any = getattr(module, "get_classifier", lambda: None)()
    found = [where for where, child in module.named_modules() if child is classifier]
    if not found:
        kind = type(classifier).__name__
        raise CxrError(f"model.name={name}: its head is not one layer (a {kind}); choose another architecture")
    return found[0]


@contextmanager
def _retrying_in_silence() -> Iterator[None]:
    """Keep the hub's client from warning of every try; the last one ends in an error."""
    client = logging.getLogger("huggingface_hub")
    before = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(before)


def _innermost(error: BaseException) -> BaseException:
    """What an error goes back to, such as a refused connection."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return error


def _check_patches(name: str, module: nn.Module, size: int) -> None:
    """Refuse a size that leaves rows of pixels outside the last patch, which the network would never see."""
    patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and size % patch[0]:
        raise CxrError(f"model.input_size={size}: {name} cuts patches of {patch[0]} pixels; expected a multiple of it")


def _config(name: str) -> Any:
    return _timm(name).models.get_pretrained_cfg(name.removeprefix(PREFIX))


def _data_config(name: str) -> dict[str, Any]:
    config = _config(name)
    values: dict[str, Any] = _timm(name).data.resolve_data_config(
        {"in_chans": 3}, config.to_dict() if config else None, use_test_size=not (config and config.fixed_input_size)
    )
    return values


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except ImportError:
        raise CxrError(f"model.name={name} needs timm: pip install -r requirements-timm.txt") from None
    return timm
