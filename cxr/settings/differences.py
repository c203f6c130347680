"""Which settings differ between two runs, for people."""

import json
from typing import Any

_SHOWN = 3  # differences that are told
_LONGEST = 60  # characters of a value


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full names; lists are values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def told(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first of the settings by full name that differ, `train.epochs was 3, now 5`; empty if none does.

    A setting that one of them lacks counts as null: the arguments of a class are there only with the class. Of two
    lists of mappings, such as stages, every value is compared: `finetune.stages.1.size was 320, now 288`.
    """
    lists = [name for name in then if _mappings(then[name]) and _mappings(now.get(name))]
    then, now = _spelled(then, lists), _spelled(now, lists)
    names = [name for name in {**now, **then} if then.get(name) != now.get(name)]
    parts = [f"{name} was {_short(then.get(name))}, now {_short(now.get(name))}" for name in names[:_SHOWN]]
    if len(names) > _SHOWN:
        parts.append(f"and {len(names) - _SHOWN} more")
    return "; ".join(parts)


def _mappings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _spelled(values: dict[str, Any], lists: list[str]) -> dict[str, Any]:
    """The same settings, with the items of some lists under their numbers."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat({str(i): item for i, item in enumerate(value)}, f"{name}.") if name in lists else {name: value}
    return found


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
