"""The schema of labels from a table: its columns, which of its rows are used, and what its labels mean."""

import math
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PlainValidator

from cxr.common import storage
from cxr.settings.section import Section

SPLITS = ("train", "val", "test")
Text = Annotated[str, Field(min_length=1)]


def _tables(value: Any) -> str | dict[str, str]:
    by_split = (
        isinstance(value, dict) and value and all(key in SPLITS and _is_text(file) for key, file in value.items())
    )
    if not by_split and not _is_text(value):
        raise ValueError("expected the name of a file, or one for each official split: {train: FILE, test: FILE}")
    for name in value.values() if isinstance(value, dict) else [value]:
        storage.under(Path(), name, "data.labels")
    return value


def _column_or_columns(value: Any) -> str | list[str]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(map(_is_text, names)):
        raise ValueError('expected the name of a column, or a list of names, with words such as "No" in quotes')
    return value


def _mapping(value: Any) -> dict[str, str | None]:
    keys_and_values = isinstance(value, dict) and all(
        (_is_text(theirs) or _is_number(theirs)) and (ours is None or _is_text(ours)) for theirs, ours in value.items()
    )
    if not keys_and_values:
        raise ValueError('expected {THEIRS: OURS, …}, with words such as "No" in quotes')
    return {str(theirs): ours for theirs, ours in value.items()}


def _filter(value: Any) -> str | int | float | list | dict:
    values = value if isinstance(value, list) else [value]
    if values and all(_is_text(item) or _is_number(item) for item in values):
        return value
    limits = value if isinstance(value, dict) else {}
    if not limits or not limits.keys() <= {"min", "max"} or not all(_is_number(limit) for limit in limits.values()):
        raise ValueError(
            'expected a value, a list of values, or {min: NUMBER, max: NUMBER}, with words such as "No" in quotes'
        )
    if limits.get("min", -math.inf) > limits.get("max", math.inf):
        raise ValueError(f"min {limits['min']} is above max {limits['max']}")
    return limits


def _pattern(value: Any) -> str:
    try:
        re.compile(value)
    except (re.error, TypeError) as error:
        raise ValueError(f"expected a regular expression ({error})") from None
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# The plain types tell the loader what a command line may hold, the validators say in one line what is expected.
Tables = Annotated[str | dict[str, str], PlainValidator(_tables)]
ColumnOrColumns = Annotated[str | list[str], PlainValidator(_column_or_columns)]
Mapping = Annotated[dict[str, str | None], PlainValidator(_mapping)]
Filter = Annotated[Any, PlainValidator(_filter)]
Pattern = Annotated[str, PlainValidator(_pattern)]


class ColumnSettings(Section):
    """Section `data.columns`: the names of a table's columns; None for what the table does not have."""

    path: Text | None
    label: ColumnOrColumns | None
    patient: Text | None
    split: Text | None
    study: Text | None
    age: Text | None
    sex: Text | None
    view: Text | None
    site: Text | None
    scanner: Text | None
