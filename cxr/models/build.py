"""Builds networks: an architecture by name, its ImageNet weights, a new head for our classes, and its input spec."""

import difflib
from dataclasses import dataclass, replace
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from cxr.errors import CxrError
from cxr.imaging.preprocess import InputSpec
from cxr.models import efficientnet_lite, weights
from cxr.settings.schema import ModelSettings


@dataclass
class Network:
    """A classifier and what it needs to be used.

    Attributes:
        name: architecture; of an ensemble, that of its members.
        classes: class names in the order of the logits.
        spec: input of the network.
        module: maps `float32` (B, 3, S, S) to logits (B, C).
        head: qualified name of the linear layer that gives the logits; empty for an ensemble.
        members: number of members of an ensemble; 0 for a single network.
    """

    name: str
    classes: tuple[str, ...]
    spec: InputSpec
    module: nn.Module
    head: str
    members: int = 0


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
    """Names of all architectures."""
    return sorted([*efficientnet_lite.VARIANTS, *torchvision.models.list_models(module=torchvision.models)])


def check(settings: ModelSettings) -> None:
    """Raise `CxrError` for an unknown architecture and a missing file of weights; nothing is built or downloaded."""
    known = architectures()
    if settings.name not in known:
        near = difflib.get_close_matches(settings.name, known, n=3, cutoff=0.4)
        similar = ", ".join(near) or ", ".join(known)
        raise CxrError(f"model.name={settings.name}: no such architecture; similar: {similar}")
    weights.check(settings.weights)


def build(settings: ModelSettings, classes: tuple[str, ...], *, seed: int, pretrained: bool = True) -> Network:
    """Build a network with a new head of `len(classes)` outputs, drawn by `seed` alone.

    `pretrained=False` leaves the weights random, for loading a bundle into it.

    Raises:
        CxrError: the name is unknown, the weights cannot be loaded or do not fit, or the output of the architecture is
            not that of a linear layer.
    """
    check(settings)
    name = settings.name
    spec = weights.input_spec(name)
    if settings.input_size is not None:
        spec = spec.scaled(settings.input_size)
    spec = replace(spec, resize_mode=settings.resize_mode)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _architecture(name, spec)
        head = find_head(name, module)
        old = module.get_submodule(head)
        state = weights.state(name, settings.weights) if pretrained else None
        if state is not None:
            _load(module, state, head, f"{name}, model.weights={settings.weights}")
        if not isinstance(old, nn.Linear):
            raise TypeError(f"{head} is a {type(old).__name__}")  # find_head gives linear layers only
        new = nn.Linear(old.in_features, len(classes))
        nn.init.zeros_(new.bias)
        module.set_submodule(head, new)
    return Network(name, tuple(classes), spec, module.eval(), head)


def find_head(name: str, module: nn.Module) -> str:
    """Name of the linear layer that gives the logits: the last layer with weights, which must be linear."""
    leaves = [(n, m) for n, m in module.named_modules() if next(m.parameters(recurse=False), None) is not None]
    last_name, last = leaves[-1]
    if not isinstance(last, nn.Linear):
        raise CxrError(
            f"model.name={name}: its head was not found (its last layer, {last_name}, is a {type(last).__name__}, "
            "not a linear layer); choose another architecture"
        )
    return last_name


def _architecture(name: str, spec: InputSpec) -> nn.Module:
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
    except ValueError as error:
        raise CxrError(f"model.name={name} cannot be built at input size {spec.size}: {error}") from None


def _load(module: nn.Module, state: dict[str, Tensor], head: str, what: str) -> None:
    """Load all weights but those of the head; anything missing or of another shape is an error."""
    wanted = {k: v for k, v in module.state_dict().items() if not k.startswith(head + ".")}
    # Auxiliary heads of googlenet and inception, used in their training only.
    given = {k: v for k, v in state.items() if not k.startswith((head + ".", "aux1.", "aux2.", "AuxLogits."))}
    for keys, problem in ((wanted.keys() - given.keys(), "missing"), (given.keys() - wanted.keys(), "unexpected")):
        names = sorted(k for k in keys if not k.endswith("num_batches_tracked"))
        if names:
            raise CxrError(
                f"{what}: weights of another architecture ({len(names)} {problem}, e.g. {', '.join(names[:3])})"
            )
    wrong = [k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape]
    if wrong:
        k = sorted(wrong)[0]
        raise CxrError(f"{what}: expected {k} of shape {tuple(wanted[k].shape)}, got {tuple(given[k].shape)}")
    module.load_state_dict(given, strict=False)
