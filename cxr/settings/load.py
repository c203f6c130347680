"""Settings: `params.yaml`, a profile and overrides, merged, typed and checked before any data is read.

`load` is the one way in. Unknown keys, wrong types and impossible values are refused with a `CxrError` that
names the key and, where there is one, the nearest valid name.
"""

import difflib
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cxr.errors import CxrError
from cxr.settings.schema import RENAMED, Section, Settings, Target


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


def load_settings(params: str | Path, profile: str = "", overrides: dict[str, str] | None = None) -> Settings:
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
        raise CxrError(_unknown(key))
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


def _unknown(key: str) -> str:
    if key in RENAMED:
        return f"setting {key!r} is now called {RENAMED[key]!r}"
    return f"unknown setting {key!r}; {_allowed(key, known_keys())}"


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
        return _unknown(key)
    if error["type"] == "missing":
        return f"setting {key!r} is missing; add it, or start from the params.yaml of this project"
    message = error["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    shown = "" if isinstance(seen, dict) else f" = {seen!r}"
    return f"setting {key}{shown}: {message}"
