"""From the body of a request to the cells of its column of images, and its parameters.

Takes a picture as it is, and every format of MLflow's server. Its own parser would build a table of whatever is sent
first, and ignores misspelt names.
"""

import csv
import io
import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, NoReturn

from cxr.errors import ImageError
from cxr.serving.request import COLUMN, Picture

JSON, CSV = "application/json", "text/csv"
PICTURE = "a picture as it is"
_PICTURES = ("application/dicom", "application/octet-stream")  # and whatever begins with image/
KINDS = f"{JSON} or {CSV}, in UTF-8, or, for a picture as it is, image/*, {' or '.join(_PICTURES)}"
PARAMS: dict[str, type] = {"operating_point": str, "heatmap": bool, "strict": bool}
HEADERS = {f"x-{name.replace('_', '-')}": name for name in PARAMS}  # X-Operating-Point, X-Heatmap, X-Strict
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")
_SEND = f'send {{"dataframe_records": [{{"{COLUMN}": BASE64}}]}}'
NO_COLUMN = f"expected a column {COLUMN!r} with images; {_SEND}"
# Commas and brackets in the JSON of one image; its base64 has none. Parsing millions of them would hold up every other
# request, since a parser holds Python's global lock.
_VALUES = 100
_FIRST_LINE = 1000  # bytes of a CSV file; it names the columns
csv.field_size_limit(2**31 - 1)  # one field holds a picture; the body as a whole has a limit


def kind_of(content_type: str | None) -> str:
    """`JSON`, `CSV` or `PICTURE`, by the content type of a request; empty for one that is not accepted.

    What a picture is, its bytes tell: of its content type only the first word counts.
    """
    kind, *details = [part.strip() for part in (content_type or "").lower().split(";")]
    if kind.startswith("image/") or kind in _PICTURES:
        return PICTURE
    in_utf_8 = all(detail.replace('"', "") in ("", "charset=utf-8") for detail in details)
    return kind if kind in (JSON, CSV) and in_utf_8 else ""


def parse(data: bytes, kind: str, max_images: int) -> tuple[list[Any], dict[str, Any]]:
    """The cells of the column, as they were sent, and the parameters; of CSV, no more than one above `max_images`.

    Raises:
        ImageError: the body is not one table with a column of images, alone or with parameters.
    """
    if kind == PICTURE:
        return [Picture(data)], {}
    return _from_json(data, max_images) if kind == JSON else (_from_csv(data, max_images), {})


def options(query: Iterable[tuple[str, str]], headers: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The parameters that a query or headers give: all of the query, and those headers that are named in `HEADERS`.

    Raises:
        ImageError: an unknown name in the query, a value that is not allowed, or a parameter that is given twice.
    """
    found: dict[str, Any] = {}
    for name, text in (*query, *((HEADERS[name], text) for name, text in headers if name in HEADERS)):
        if name not in PARAMS:
            raise ImageError(f"query: expected {', '.join(PARAMS)} and no others")
        if name in found:
            raise _given_twice(name)
        value = _BOOLEANS.get(text.lower()) if PARAMS[name] is bool else text
        if value is None:
            raise ImageError(f"{name} as query or header: expected true or false")
        found[name] = value
    return found


def merged(given: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    """The parameters in a body and those beside it; `ImageError` for one that is in both."""
    for name in given.keys() & beside.keys():
        raise _given_twice(name)
    return {**given, **beside}


def _from_json(data: bytes, max_images: int) -> tuple[list[Any], dict[str, Any]]:
    if sum(map(data.count, (b",", b"[", b"{"))) > _VALUES * (max_images + 1):
        raise ImageError(f"far more values than {max_images} images; {_SEND}")
    try:
        body = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _no_table(JSON) from None
    given = [name for name in _FORMATS if name in body] if isinstance(body, dict) else []
    if len(given) != 1:
        raise _no_table(JSON)
    if body.keys() - {given[0], "params"}:
        raise ImageError(f"expected {given[0]} and params in a request, and nothing else")
    params = _checked(body.get("params"))
    return _from_split(body[given[0]]) if given[0] == "dataframe_split" else _from_rows(body[given[0]]), params


def _from_split(table: Any) -> list[Any]:
    columns, rows = (table.get("columns"), table.get("data")) if isinstance(table, dict) else (None, None)
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise _no_table(JSON)
    if columns.count(COLUMN) != 1:
        raise ImageError(NO_COLUMN)
    if not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise _no_table(JSON)
    place = columns.index(COLUMN)
    return [row[place] for row in rows]


def _from_rows(table: Any) -> list[Any]:
    """Cells of a list of rows, of a list of cells, or of a column by its name."""
    if isinstance(table, dict) and COLUMN in table:
        return table[COLUMN] if isinstance(table[COLUMN], list) else [table[COLUMN]]
    if isinstance(table, dict):
        raise ImageError(NO_COLUMN)
    if not isinstance(table, list):
        raise _no_table(JSON)
    if table and all(isinstance(row, dict) and COLUMN not in row for row in table):
        raise ImageError(NO_COLUMN)
    return [row.get(COLUMN) if isinstance(row, dict) else row for row in table]


def _from_csv(data: bytes, max_images: int) -> list[Any]:
    if len(data.split(b"\n", 1)[0]) > _FIRST_LINE:
        raise _no_table(CSV)
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        columns, *table = islice(filter(None, rows), max_images + 2)
    except (ValueError, csv.Error):
        raise _no_table(CSV) from None
    if columns.count(COLUMN) != 1:
        raise ImageError(NO_COLUMN)
    if not all(len(row) == len(columns) for row in table):
        raise _no_table(CSV)
    return [row[columns.index(COLUMN)] or None for row in table]


def _checked(params: Any) -> dict[str, Any]:
    if params is None:
        return {}
    if not isinstance(params, dict) or not params.keys() <= PARAMS.keys():
        raise ImageError(f"params: expected {', '.join(PARAMS)} and no others")
    for name, value in params.items():
        if not isinstance(value, PARAMS[name]):
            raise ImageError(f"params: {name}: expected {'true or false' if PARAMS[name] is bool else 'a name'}")
    return params


def _given_twice(name: str) -> ImageError:
    return ImageError(f"{name} is given twice; give it once, in the body, the query or a header")


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and infinities are no JSON")


def _no_table(kind: str) -> ImageError:
    return ImageError(f"no table of images in {kind}; {_SEND}")
