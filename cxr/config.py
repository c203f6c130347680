"""Settings: `params.yaml`, a profile and overrides, merged, typed and checked before any data is read.

`load` is the one way in. Unknown keys, wrong types and impossible values are refused with a `CxrError` that
names the key and, where there is one, the nearest valid name.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cxr.errors import CxrError

ALLOWED_PACKAGES = ("torch.", "torchvision.", "torchmetrics.")
TARGET_KEY = "_target_"
CLASS_NAMES = {2: ("normal", "pneumonia"), 3: ("normal", "bacteria", "virus")}

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
GateScore = Literal[
    "accuracy", "balanced_accuracy", "macro_f1", "auc_pneumonia", "sensitivity", "specificity"
]  # higher is better for all of them
Workers = Literal["auto"] | Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A mapping of settings: strict types, no keys but its own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Target(BaseModel):
    """A class by its full name (`_target_`) and the keyword arguments to build it with."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, populate_by_name=True)
    target: str = Field(alias=TARGET_KEY)

    @field_validator("target")
    @classmethod
    def _allowed(cls, name: str) -> str:
        if not name.startswith(ALLOWED_PACKAGES) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
            raise ValueError(f"only classes under {', '.join(p + '*' for p in ALLOWED_PACKAGES)} can be named")
        return name

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class DataSettings(Section):
    path: str = Field(min_length=1)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    cache_dir: str | None
    classes: Literal[2, 3]
    val_size: Share
    test_size: Share
    subset_size: Positive | None
    max_unreadable: float = Field(ge=0, lt=1)
    near_duplicate_bits: int = Field(ge=0, le=16)
    workers: Workers
    sample_images: int = Field(ge=30, le=5000)

    @model_validator(mode="after")
    def _something_left(self):
        if self.val_size + self.test_size >= 0.9:
            raise ValueError("val_size and test_size together must leave at least 0.1 for training")
        return self


class ModelSettings(Section):
    name: str = Field(pattern=r"^[a-z0-9_]+$")
    weights: str = Field(min_length=1)
    input_size: Annotated[int, Field(ge=16, le=2048)] | None
    fit: Literal["crop", "squash", "pad"]


class AugmentSettings(Section):
    flip: bool
    crop_scale: list[Annotated[float, Field(ge=0.05, le=1)]] = Field(min_length=2, max_length=2)
    rotate: float = Field(ge=0, le=180)
    translate: float = Field(ge=0, le=0.5)
    brightness: float = Field(ge=0, le=1)
    contrast: float = Field(ge=0, lt=1)
    gamma: float = Field(ge=0, le=2)

    @model_validator(mode="after")
    def _ordered(self):
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale {self.crop_scale}: the smaller share comes first")
        return self

    @property
    def off(self) -> bool:
        """True where nothing is drawn and training sees exactly what evaluation sees."""
        strengths = (self.rotate, self.translate, self.brightness, self.contrast, self.gamma)
        return not self.flip and self.crop_scale[0] == 1.0 and not any(strengths)


class FitSettings(Section):
    epochs: Positive
    batch_size: Positive
    patience: Positive
    min_delta: float = Field(ge=0)
    checkpoint_interval: Positive
    class_weights: Literal["balanced", "none"]
    workers: Workers
    compile: Literal["auto"] | bool
    loss: Target
    optimizer: Target
    scheduler: Target | None
    metric: Target
    augment: AugmentSettings


class FinetuneSettings(FitSettings):
    unfreeze: Literal["all"] | Annotated[int, Field(ge=0)]


class CalibrationSettings(Section):
    temperature: Literal["fitted", "none"]
    min_sensitivity: Share


class EvaluateSettings(Section):
    batch_size: Positive
    metric: Target
    prevalences: list[Share]
    robustness: bool
    robustness_images: Positive | None
    gallery: int = Field(ge=0, le=60)


class GateSettings(Section):
    metric: GateScore
    margin: float = Field(ge=0, le=1)
    minimum: dict[GateScore, Annotated[float, Field(ge=0, le=1)]]


class RegistrySettings(Section):
    name: str = Field(pattern=r"^[\w .-]+$")
    register_model: bool = Field(alias="register")
    gate: GateSettings


class CacheSettings(Section):
    dir: str | None
    max_gb: float = Field(ge=0)
    decoded: bool
    features: bool
    views: Annotated[int, Field(ge=1, le=100)]


class Settings(Section):
    """All settings of a run. Attribute names are the keys of `params.yaml`."""

    seed: int = Field(ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "float32", "bfloat16"]
    deterministic: bool
    log_dir: str = Field(min_length=1)
    data: DataSettings
    model: ModelSettings
    train: FitSettings
    finetune: FinetuneSettings
    cache: CacheSettings
    calibration: CalibrationSettings
    evaluate: EvaluateSettings
    registry: RegistrySettings

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the keys of `params.yaml`."""
        return self.model_dump(by_alias=True)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but with `1e-4` a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML; a `CxrError` names `where` the text came from and the line that is wrong."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise CxrError(f"{where}{line}: not valid YAML ({getattr(error, 'problem', None) or error})") from None


def read_file(path: str | Path) -> dict:
    """Read a settings file, which must be a mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise CxrError(f"settings file {path}: {error.strerror}; give a YAML file as -P params=FILE") from None
    except UnicodeDecodeError:
        raise CxrError(f"settings file {path}: not UTF-8 text; give a YAML file as -P params=FILE") from None
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise CxrError(f"settings file {path}: holds {type(values).__name__}, needed is a mapping of settings")
    return values


def load(params: str | Path, profile: str = "", overrides: dict[str, str] | None = None) -> Settings:
    """Read `params`, lay the profile over it, then the overrides (`{"train.epochs": "10"}`), and check all."""
    values = read_file(params)
    profiles = values.pop("profiles", None) or {}
    if profile:
        if profile not in profiles:
            raise CxrError(f"profile {profile!r} is not in {params}; {_allowed(profile, profiles)}")
        values = merge(values, profiles[profile] or {})
    return resolve(values, overrides)


def resolve(values: dict, overrides: dict[str, str] | None = None) -> Settings:
    """Lay overrides over a whole set of values (as `Settings.to_dict` gives it) and check all."""
    for key, text in (overrides or {}).items():
        values = merge(values, _nested(key, text))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise CxrError("; ".join(_explain(e) for e in error.errors())) from None


def merge(base: dict, over: dict) -> dict:
    """`base` with the values of `over` in their places, mapping by mapping; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def known_keys(section: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Every dotted key there is, sections and `_target_` arguments left out."""
    found = []
    for name, field in section.model_fields.items():
        dotted = prefix + (field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += known_keys(field.annotation, dotted + ".")
        else:
            found.append(dotted)
    return found


def _nested(key: str, text: str) -> dict:
    """`train.epochs`, `10` to `{"train": {"epochs": 10}}`; the key must exist."""
    known = known_keys()
    parts = key.split(".")
    owner = next((k for k in known if key == k or key.startswith(k + ".")), None)
    if owner is None or (owner != key and not _holds_target(owner)):
        raise CxrError(f"unknown setting {key!r}; {_allowed(key, known)}")
    value: Any = text if _is_text(owner) and owner == key else read_yaml(text, f"setting {key}")
    if owner == key and text.strip().lower() in ("", "null"):
        value = None
    for part in reversed(parts):
        value = {part: value}
    return value


def _annotation(key: str) -> Any:
    section: type[BaseModel] = Settings
    *path, last = key.split(".")
    for part in path:
        section = section.model_fields[part].annotation
    return next(f for name, f in section.model_fields.items() if (f.alias or name) == last).annotation


def _holds_target(key: str) -> bool:
    return _annotation(key) in (Target, Target | None)


def _is_text(key: str) -> bool:
    """True where the setting is any text, so that `-P data.path=2024` stays a name."""
    annotation = _annotation(key)
    return annotation is str or (getattr(annotation, "__args__", None) and str in _bare(annotation))


def _bare(annotation: Any) -> list:
    return [getattr(a, "__origin__", a) for a in annotation.__args__]


def _allowed(name: str, known) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    last = [k for k in known if k.split(".")[-1] == name.split(".")[-1]]
    if near or last:
        return f"did you mean {(near or last)[0]!r}?"
    return f"known: {', '.join(sorted(known))}"


def _explain(error: dict) -> str:
    """One of pydantic's findings as one line."""
    path = [str(part) for part in error["loc"] if not str(part).startswith(("literal", "constrained", "function"))]
    key = ".".join(p for p in path if p not in ("int", "float", "str", "Target", "list"))
    seen = error["input"]
    if error["type"] == "extra_forbidden":
        return f"unknown setting {key!r}; {_allowed(key, known_keys())}"
    if error["type"] == "missing":
        return f"setting {key!r} is missing; add it, or start from the params.yaml of this project"
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    shown = "" if isinstance(seen, dict) else f" = {seen!r}"
    return f"setting {key}{shown}: {message}"
