"""Builds networks: an architecture by name, its ImageNet weights, a new head for our classes, and its input spec."""

import difflib
import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from cxr.errors import CxrError, in_short
from cxr.imaging.preprocess import InputSpec
from cxr.models import efficientnet_lite, timm_models, weights
from cxr.settings.schema import ModelSettings

log = logging.getLogger(__name__)


@dataclass
class Network:
    """A classifier and what it needs to be used.

    Attributes:
        name: architecture, as `model.name` gives it; of an ensemble, that of its members.
        classes: class names in the order of the logits.
        spec: input of the network.
        module: maps `float32` (B, 3, S, S) to logits (B, C).
        head: qualified name of the linear layer that gives the logits; empty for an ensemble.
        members: number of members of an ensemble; 0 for a single network.
        views: views of an image whose logits are averaged for its answer (see `cxr.models.views`); `module` itself
            knows nothing of them.
    """

    name: str
    classes: tuple[str, ...]
    spec: InputSpec
    module: nn.Module
    head: str
    members: int = 0
    views: int = 1


class Ensemble(nn.Module):
    """Logits whose softmax is the mean of the members' probabilities, each at its own temperature."""

    temperatures: Tensor

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("temperatures", torch.ones(len(members)))

    def forward(self, x: Tensor) -> Tensor:
        """`float32` (B, 3, S, S) to (B, C)."""
        logits = [member(x) / t for member, t in zip(self.members, self.temperatures, strict=True)]
        return torch.stack(logits).softmax(-1).mean(0).clamp_min(1e-12).log()


def architectures() -> list[str]:
    """Names of all architectures but those of timm."""
    return sorted([*efficientnet_lite.VARIANTS, *torchvision.models.list_models(module=torchvision.models)])


def check(settings: ModelSettings) -> None:
    """Raise `CxrError` for an unknown architecture and a missing file of weights; nothing is built or downloaded."""
    known = architectures()
    if timm_models.owns(settings.name):
        timm_models.check(settings.name)
    elif settings.name not in known:
        near = difflib.get_close_matches(settings.name, known, n=3, cutoff=0.4)
        similar = ", ".join(near) or ", ".join(known)
        raise CxrError(f"model.name={settings.name}: no such architecture; similar: {similar}")
    weights.check(settings.weights)


def build(settings: ModelSettings, classes: tuple[str, ...], *, seed: int, pretrained: bool = True) -> Network:
    """Build a network with a new head of `len(classes)` outputs, drawn by `seed` alone.

    `pretrained=False` leaves the weights random, for loading a bundle into it.

    Raises:
        CxrError: the name is unknown, the weights cannot be loaded or do not fit, the output of the architecture is
            not that of a linear layer, or it cannot take images of the size in the settings.
    """
    check(settings)
    name, what = settings.name, f"{settings.name}, model.weights={settings.weights}"
    downloaded = pretrained and settings.weights == "imagenet" and timm_models.owns(name)
    spec = weights.input_spec(name)
    if settings.input_size is not None:
        spec = spec.scaled(settings.input_size)
    spec = replace(spec, resize_mode=settings.resize_mode)
    one_channel = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _architecture(name, spec, downloaded)
        head = find_head(name, module)
        old = module.get_submodule(head)
        state = weights.state(name, settings.weights) if pretrained and not downloaded else None
        if state is not None:
            one_channel = weights.load(module, state, head, name, settings.weights)
        if not isinstance(old, nn.Linear):
            raise TypeError(f"{head} is a {type(old).__name__}")  # find_head gives linear layers only
        new = nn.Linear(old.in_features, len(classes))
        nn.init.zeros_(new.bias)
        module.set_submodule(head, new)
    if settings.input_range is not None:
        spec = weights.of_range(spec, *settings.input_range)
    elif one_channel:
        spec = weights.equal_channels(spec)
        log.warning(
            "%s: pixels are scaled as for ImageNet weights; weights of torchxrayvision need "
            "-P model.input_range=[-1024,1024], others the range that they were trained on",
            what,
        )
    network = Network(name, tuple(classes), spec, module.eval(), head)
    if pretrained and settings.input_size is not None:
        check_size(network, spec.size, "model.input_size")
    return network


def check_size(network: Network, size: int, setting: str) -> None:
    """Raise `CxrError` unless the network takes images of `size` x `size` pixels, as seen on one black image."""
    device = next(network.module.parameters()).device
    try:
        with torch.no_grad():
            network.module(torch.zeros(1, 3, size, size, device=device))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise CxrError(
            f"{setting}={size}: {network.name}, built for {network.spec.size} pixels, cannot take images of "
            f"{size} x {size} ({in_short(error)}); give another size or choose another architecture"
        ) from None


def find_head(name: str, module: nn.Module) -> str:
    """Name of the linear layer that gives the logits: timm's classifier, or the last layer with weights."""
    if timm_models.owns(name):
        last_name = timm_models.head(name, module)
    else:
        leaves = [n for n, m in module.named_modules() if next(m.parameters(recurse=False), None) is not None]
        last_name = leaves[-1]
    last = module.get_submodule(last_name)
    if not isinstance(last, nn.Linear):
        raise CxrError(
            f"model.name={name}: its head was not found (its last layer, {last_name}, is a {type(last).__name__}, "
            "not a linear layer); choose another architecture"
        )
    return last_name


def _architecture(name: str, spec: InputSpec, pretrained: bool) -> nn.Module:
    """The network; `pretrained` gives it the weights of timm, which loads its own."""
    if timm_models.owns(name):
        return timm_models.build(name, spec.size, pretrained=pretrained)
    if name in efficientnet_lite.VARIANTS:
        return efficientnet_lite.build(name)
    extra: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # Their weights expect another normalisation than their transforms give; they convert it themselves.
        extra = {"init_weights": False, "aux_logits": False, "transform_input": True}
    if name.startswith("vit_"):
        extra = {"image_size": spec.size}
    if name == "maxvit_t":
        extra = {"input_size": (spec.size, spec.size)}
    try:
        return torchvision.models.get_model(name, weights=None, **extra)
    except (AssertionError, ValueError) as error:
        raise CxrError(f"model.name={name} cannot be built at input size {spec.size}: {error}") from None
