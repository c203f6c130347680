"""Loading of settings: `params.yaml`, a recipe, a profile and overrides, merged and checked before any data is read.

Unknown keys, wrong types and values out of range raise `CxrError`, which names the key and, if there is one, the
closest valid name.
"""

import difflib
import re
from collections.abc import Collection
from functools import reduce
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cxr.errors import CxrError
from cxr.settings.schema import RENAMED, REPLACED, Settings, Target
from cxr.settings.section import Section
from cxr.settings.serving import RULES

RECIPES = Path(__file__).resolve().parents[2] / "datasets"
# Mappings that are values: given anew, they are replaced and not added to.
_WHOLE = ("space",)


class _Loader(yaml.SafeLoader):
    """PyYAML's YAML 1.1, except that `1e-4` is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_yaml(text: str, where: str) -> Any:
    """Parse YAML; errors name the line and `where` the text comes from."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # nosec B506  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise CxrError(f"{where}{line}: not valid YAML ({getattr(error, 'problem', None) or error})") from None


def read_file(path: str | Path, parameter: str = "params") -> dict:
    """Read a settings file, given as `parameter`, which must hold a mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise CxrError(f"settings file {path}: {error.strerror}; give a YAML file as -P {parameter}=FILE") from None
    except UnicodeDecodeError:
        raise CxrError(f"settings file {path}: not UTF-8 text; give a YAML file as -P {parameter}=FILE") from None
    values = read_yaml(text, str(path))
    if not isinstance(values, dict):
        raise CxrError(f"settings file {path}: expected a mapping of settings, got {type(values).__name__}")
    return values


def load_settings(params: str | Path, profile: str = "", overrides: dict[str, str] | None = None) -> Settings:
    """Load the file `params`, apply a recipe, a profile, then overrides (`{"train.epochs": "10"}`); check the result.

    The recipe is the one that the last of them names. It wins over the file, which names every setting.
    """
    values, recipe, layer = _layers(params, profile, overrides or {})
    return resolve(_over(merge(values, recipe), layer), overrides)


def is_given(key: str, params: str | Path, profile: str = "", overrides: dict[str, str] | None = None) -> bool:
    """Whether an override, the profile or the recipe gives a setting; the file `params` names all of them."""
    _, *layers = _layers(params, profile, overrides or {})
    *sections, name = key.split(".")
    for layer in layers:
        for section in sections:
            layer = layer.get(section) or {}
        if name in layer:
            return True
    return key in (overrides or {})


def profiles(params: str | Path) -> list[str]:
    """The names of the profiles of the file `params`."""
    return list(read_file(params).get("profiles") or {})


def _layers(params: str | Path, profile: str, overrides: dict[str, str]) -> tuple[dict, dict, dict]:
    """The settings of the file, of the recipe and of the profile."""
    values = read_file(params)
    profiles = values.pop("profiles", None) or {}
    layer: dict = {}
    if profile:
        if profile not in profiles:
            raise CxrError(f"unknown profile {profile!r} of {params}; {_suggestion(profile, profiles)}")
        layer = profiles[profile] or {}
    named = merge(values, layer)
    if "data.recipe" in overrides:
        named = merge(named, _nested("data.recipe", overrides["data.recipe"]))
    data = named.get("data")
    if isinstance(data, dict) and data.get("recipe") is not None:
        return values, {"data": read_recipe(str(data["recipe"]))}, layer
    return values, {}, layer


def read_recipe(name: str) -> dict:
    """Read the settings of `data` for a dataset: the file `datasets/NAME.yaml` of the project, or any FILE.yaml."""
    if name.endswith((".yaml", ".yml")):
        return read_file(Path(name).expanduser(), "data.recipe")
    file = RECIPES / f"{name}.yaml"
    known = [path.stem for path in RECIPES.glob("*.yaml")]
    if name not in known:
        raise CxrError(f"data.recipe={name}: no such recipe; {_suggestion(name, known)}, or the path of a FILE.yaml")
    return read_file(file, "data.recipe")


def resolve(values: dict, overrides: dict[str, str] | None = None) -> Settings:
    """Apply overrides to a complete set of values (see `Settings.to_dict`) and check the result."""
    given = [_nested(key, text) for key, text in (overrides or {}).items()]
    values = _over(values, reduce(merge, given, {}))
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise CxrError("; ".join(_explain(details) for details in error.errors())) from None


def merge(base: dict, over: dict) -> dict:
    """Return `base` with the values of `over`, merged recursively except for `_WHOLE`; neither argument is changed."""
    merged = dict(base)
    for key, value in over.items():
        both_mappings = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both_mappings and key not in _WHOLE else value
    return merged


def _over(base: dict, layer: dict) -> dict:
    """Return `base` with the values of `layer`; if it gives one of `RULES` alone, the other becomes null."""
    serving = layer.get("serving")
    given = [rule for rule in RULES if rule in serving] if isinstance(serving, dict) else []
    if len(given) == 1 and layer["serving"][given[0]] is not None:
        base = merge(base, {"serving": dict.fromkeys(RULES)})
    return merge(base, layer)


def known_keys(section: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """List the dotted keys of all settings, without sections and the arguments of `_target_` classes."""
    keys = []
    for name, field in section.model_fields.items():
        key = prefix + (field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys += known_keys(field.annotation, key + ".")
        else:
            keys.append(key)
    return keys


def _nested(key: str, text: str) -> dict:
    """Turn `train.epochs` and `10` into `{"train": {"epochs": 10}}`; the key must exist."""
    setting = next((known for known in known_keys() if key == known or key.startswith(known + ".")), None)
    if setting is None or (setting != key and not _is_target(setting)):
        raise CxrError(_unknown(key))
    value: Any = text if setting == key and _is_text(setting, text) else read_yaml(text, f"setting {key}")
    if setting == key and text.strip().lower() in ("", "null"):
        value = None
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def _annotation(key: str) -> Any:
    """Type of the setting with this dotted key."""
    annotation: Any = Settings
    for name in key.split("."):
        fields = {field.alias or attribute: field for attribute, field in annotation.model_fields.items()}
        annotation = fields[name].annotation
    return annotation


def _is_target(key: str) -> bool:
    return _annotation(key) in (Target, Target | None)


def _is_text(key: str, value: str) -> bool:
    """Whether the value of a setting is free text that is not parsed as YAML: `-P data.path=2024` is a name.

    Where a list or a mapping is allowed as well, brackets and braces begin one.
    """
    annotation = _annotation(key)
    alternatives = [getattr(kind, "__origin__", kind) for kind in _alternatives(annotation)]
    return str in alternatives and not (value.lstrip().startswith(("[", "{")) and {list, dict} & set(alternatives))


def _alternatives(annotation: Any) -> list[Any]:
    """The types of a union, without what `Annotated` adds to them."""
    if hasattr(annotation, "__metadata__"):
        return _alternatives(annotation.__origin__)
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return [kind for part in annotation.__args__ for kind in _alternatives(part)]
    return [annotation]


def _unknown(key: str) -> str:
    if key in RENAMED:
        return f"setting {key!r} was renamed; use {RENAMED[key]!r}"
    if key in REPLACED:
        return f"setting {key!r} is gone: {REPLACED[key]}"
    return f"unknown setting {key!r}; {_suggestion(key, known_keys())}"


def _suggestion(name: str, known: Collection[str]) -> str:
    """Name the closest of the known names, or all of them."""
    last = name.rsplit(".", maxsplit=1)[-1]
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    near = near or [other for other in known if other.split(".")[-1] == last]
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted(known))}"


def _explain(error: ErrorDetails) -> str:
    """Turn a validation error of pydantic into one line."""
    path = [str(step) for step in error["loc"] if not str(step).startswith(("literal", "constrained", "function"))]
    key = ".".join(step for step in path if step not in ("int", "float", "str", "Target", "list"))
    value = error["input"]
    if error["type"] == "extra_forbidden":
        return _unknown(key)
    if error["type"] == "missing":
        return f"setting {key!r} is missing; add it, or start from the params.yaml of this project"
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    shown = "" if isinstance(value, dict) else f" = {value!r}"
    return f"setting {key}{shown}: {message}" if key else message  # of all settings: the message names them
