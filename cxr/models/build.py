"""Networks: an architecture by name, its ImageNet weights, a new head for our classes, and its input spec."""

import difflib
from dataclasses import dataclass, replace

import torch
import torchvision
from torch import Tensor, nn

from cxr.errors import CxrError
from cxr.imaging.preprocess import InputSpec
from cxr.models import efficientnet_lite, weights
from cxr.settings.schema import ModelSettings


@dataclass
class Network:
    """A classifier: `module` takes `float32` (B, 3, S, S) as `spec` makes it, and gives logits (B, C).

    `head` is the qualified name of the linear layer that gives the logits, in the order of `classes`. An ensemble has
    `members` of the architecture `name`, and no single head.
    """

    name: str
    classes: tuple[str, ...]
    spec: InputSpec
    module: nn.Module
    head: str
    members: int = 0


class Ensemble(nn.Module):
    """Logits whose softmax is the mean of the members' probabilities, each at its own temperature."""

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("temperatures", torch.ones(len(members)))

    def forward(self, x: Tensor) -> Tensor:
        """`float32` (B, 3, S, S) to (B, C)."""
        found = [member(x) / t for member, t in zip(self.members, self.temperatures, strict=True)]
        return torch.stack(found).softmax(-1).mean(0).clamp_min(1e-12).log()


def names() -> list[str]:
    """Every architecture that can be asked for by name."""
    return sorted([efficientnet_lite.NAME, *torchvision.models.list_models(module=torchvision.models)])


def build(settings: ModelSettings, classes: tuple[str, ...], *, seed: int, pretrained: bool = True) -> Network:
    """Build a network with a new head of `len(classes)` outputs, drawn by `seed` alone.

    `pretrained=False` leaves the weights random, for loading a bundle into it. Raises `CxrError` for unknown names,
    weights that cannot be had or do not fit, and architectures whose output is not a linear layer.
    """
    name = settings.name
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise CxrError(f"model.name={name}: no such architecture; near: {', '.join(near) or ', '.join(known)}")
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
        new = nn.Linear(old.in_features, len(classes))
        nn.init.zeros_(new.bias)
        module.set_submodule(head, new)
    return Network(name, tuple(classes), spec, module.eval(), head)


def find_head(name: str, module: nn.Module) -> str:
    """The linear layer that gives the logits: the last layer with weights, which must be linear."""
    leaves = [(n, m) for n, m in module.named_modules() if next(m.parameters(recurse=False), None) is not None]
    last_name, last = leaves[-1]
    if not isinstance(last, nn.Linear):
        raise CxrError(
            f"model.name={name}: its head was not found (its last layer, {last_name}, is a {type(last).__name__}, "
            "not a linear one); choose another architecture"
        )
    return last_name


def _architecture(name: str, spec: InputSpec) -> nn.Module:
    if name == efficientnet_lite.NAME:
        return efficientnet_lite.build()
    extra = {}
    if name in ("googlenet", "inception_v3"):
        # Their weights want another normalisation than their transforms give, and know how to change it.
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
    """Load all weights but the head's; anything missing or of another shape is an error."""
    wanted = {k: v for k, v in module.state_dict().items() if not k.startswith(head + ".")}
    # Training aids of googlenet and inception, which nobody uses afterwards.
    given = {k: v for k, v in state.items() if not k.startswith((head + ".", "aux1.", "aux2.", "AuxLogits."))}
    for found, of in ((wanted.keys() - given.keys(), "missing"), (given.keys() - wanted.keys(), "not of it")):
        found = sorted(k for k in found if not k.endswith("num_batches_tracked"))
        if found:
            raise CxrError(f"{what}: weights of another architecture ({len(found)} {of}, e.g. {', '.join(found[:3])})")
    wrong = [k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape]
    if wrong:
        k = sorted(wrong)[0]
        raise CxrError(f"{what}: {k} is of shape {tuple(given[k].shape)}, needed is {tuple(wanted[k].shape)}")
    module.load_state_dict(given, strict=False)
