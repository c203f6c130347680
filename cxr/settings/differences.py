"""Which settings differ between two runs, for people."""

import json
from collections.abc import Iterator
from typing import Any, TypeGuard

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
    differing = list(_differing(then, now))
    parts = [f"{name} was {_short(old)}, now {_short(new)}" for name, old, new in differing[:_SHOWN]]
    if len(differing) > _SHOWN:
        parts.append(f"and {len(differing) - _SHOWN} more")
    return "; ".join(parts)


def _differing(then: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in {**now, **then}:
        old, new = then.get(name), now.get(name)
        if _mappings(old) and _mappings(new):
            yield from _differing(_numbered(name, old), _numbered(name, new))
        elif old != new:
            yield name, old, new


def _mappings(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _numbered(name: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return flat({str(number): item for number, item in enumerate(items)}, f"{name}.")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
