"""The bundle: the weights of a network and everything needed to use them, in one folder.

`model.pt` is the state dict; `config.json` holds architecture, class names in order, the finding, input spec,
temperature, operating points and the facts of the training. `config.json` has the digest of `model.pt` and is written
last, so that an incomplete bundle is recognised.
"""

import hashlib
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from cxr.common.files import check_digest, write_atomic
from cxr.common.names import PNEUMONIA
from cxr.errors import CxrError
from cxr.imaging.preprocess import InputSpec
from cxr.models.build import Ensemble, Network, build
from cxr.settings.schema import ModelSettings

FORMAT = 2
WEIGHTS, CONFIG = "model.pt", "config.json"
# What decides the answer to an image, with those of _OPTIONAL that are there; the rest of config.json is provenance.
_MEANING = ("model", "members", "classes", "input", "temperature", "operating_points", "weights_sha256")
_OPTIONAL = ("views", "finding")  # absent: one view; pneumonia


@dataclass
class Bundle:
    """A network ready to be used.

    Attributes:
        network: the network, with its input spec and class names.
        temperature: logits are divided by it before softmax; 1 leaves them as they are.
        operating_points: name -> threshold on the probability of the finding.
        facts: provenance: epoch, validation metric, digest of the manifest.
        finding: what all classes but the first have in common.
    """

    network: Network
    temperature: float = 1.0
    operating_points: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    finding: str = PNEUMONIA

    @property
    def folds(self) -> bool:
        """Whether it is an ensemble of folds: each member has seen the validation images of all others."""
        return self.facts.get("folds") is not None


def save(bundle: Bundle, folder: str | Path) -> str:
    """Write a bundle into `folder` (made where absent) and return its digest."""
    folder, network = Path(folder), bundle.network
    state = {name: value.detach().cpu().contiguous() for name, value in network.module.state_dict().items()}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    values = {
        "format": FORMAT,
        "model": network.name,
        "members": network.members,
        "classes": list(network.classes),
        "input": network.spec.to_dict(),
        "temperature": bundle.temperature,
        "operating_points": bundle.operating_points,
        "weights_sha256": hashlib.sha256(buffer.getbuffer()).hexdigest(),
        "facts": bundle.facts,
    }
    if network.views > 1:
        values["views"] = network.views
    if bundle.finding != PNEUMONIA:
        values["finding"] = bundle.finding
    write_atomic(folder / WEIGHTS, buffer.getvalue())
    write_atomic(folder / CONFIG, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())
    return _digest(values)


def load(folder: str | Path) -> Bundle:
    """Read a bundle; raises `CxrError` if anything is missing, truncated or does not belong together."""
    folder = Path(folder)
    values = _config(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        raise CxrError(f"bundle {folder} has no {WEIGHTS}; a bundle is {WEIGHTS} and {CONFIG} together")
    wanted = values["weights_sha256"]
    check_digest(file, wanted, owner=f"bundle {folder}", config=CONFIG, remedy="train again")
    spec = InputSpec.from_dict(values["input"])
    try:
        settings = ModelSettings(
            name=values["model"],
            weights="none",
            input_size=spec.size,
            input_range=None,  # the bundle's own spec has it
            resize_mode=spec.resize_mode,
        )
    except ValidationError as error:
        words = error.errors()[0]["msg"]
        raise CxrError(f"bundle {folder}: {CONFIG} names no network that can be built ({words})") from None
    network = _empty(settings, tuple(values["classes"]), values["members"])
    network.spec, network.views = spec, values.get("views", 1)
    try:
        network.module.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds for damaged files
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CxrError(f"bundle {folder}: {WEIGHTS} does not fit {values['model']} ({line})") from None
    finding = values.get("finding", PNEUMONIA)
    return Bundle(network, values["temperature"], values["operating_points"], values["facts"], finding)


def _empty(settings: ModelSettings, classes: tuple[str, ...], members: int) -> Network:
    """A network, or an ensemble, of random weights."""
    built = [build(settings, classes, seed=0, pretrained=False) for _ in range(max(1, members))]
    if not members:
        return built[0]
    return replace(built[0], module=Ensemble([member.module for member in built]).eval(), head="", members=members)


def digest(folder: str | Path) -> str:
    """A digest of what decides the answers of the bundle; its provenance does not count."""
    return _digest(_config(Path(folder)))


def check_classes(bundle: Bundle, classes: tuple[str, ...], finding: str) -> None:
    """Raise `CxrError` unless the bundle has exactly these classes and this finding."""
    if bundle.network.classes != tuple(classes):
        raise CxrError(
            f"the bundle has the classes {', '.join(bundle.network.classes)}, the split has {', '.join(classes)}; "
            "use the split it was trained on, or train again"
        )
    if bundle.finding != finding:
        raise CxrError(
            f"the bundle has the finding {bundle.finding}, the split has {finding}; use the split it was trained on, "
            "or train again"
        )


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CxrError(
            f"bundle {folder}: {CONFIG} cannot be read ({error.strerror}); give the folder of a bundle"
        ) from None
    except ValueError as error:
        raise CxrError(f"bundle {folder}: {CONFIG} is not valid JSON ({error})") from None
    required = {"format", *_MEANING, "facts"}
    if not isinstance(values, dict) or not required <= values.keys():
        missing = ", ".join(sorted(required - set(values))) if isinstance(values, dict) else "everything"
        raise CxrError(f"bundle {folder}: {CONFIG} lacks {missing}")
    if values["format"] != FORMAT:
        raise CxrError(f"bundle {folder} has format {values['format']}; this version reads format {FORMAT}")
    return values


def _digest(values: dict[str, Any]) -> str:
    meaning = {name: values[name] for name in (*_MEANING, *_OPTIONAL) if name in values}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()
