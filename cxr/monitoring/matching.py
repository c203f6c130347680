"""Which row of a table of truths each answer belongs to, by the path of its image or by its request."""

from pathlib import Path, PurePath

import pandas as pd

from cxr.errors import CxrError

_OF_PICTURE = ("brightness", "width", "height")  # columns by which answers to one picture agree, whoever computed them
_SAME = 0.01  # largest difference in these
_Key = tuple[str, ...]


def key_columns(rows: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """The columns by which images are named, both in a table and in answers; none if there are none."""
    named = next((name for name in ("path", "request_id") if name in table and name in rows), None)
    if named == "request_id" and "row" in table and "row" in rows:
        return [named, "row"]
    return [named] if named else []


def match(rows: pd.DataFrame, table: pd.DataFrame, file: Path) -> tuple[pd.DataFrame, list[int]]:
    """Match answers with a table that has a label and `key_columns` in each row.

    Returns:
        Each image of the table once, and for each answer the row that it has there, -1 without one.

    Raises:
        CxrError: a row of the table names no image, an image has two labels, or a name is that of several images.
    """
    names = key_columns(rows, table)
    _check_filled(table, names, file)
    keys = _paths(table, file) if names == ["path"] else _requests(table, names, file)
    first: dict[_Key, int] = {}
    for place, (key, label) in enumerate(zip(keys, table["label"], strict=True)):
        known = table["label"].iat[first.setdefault(key, place)]
        if known != label:
            named = " row ".join(table[names].iloc[place])
            raise CxrError(f"truth={file}: two labels for {named}, {known} and {label}; leave the wrong one out")
    table = table.iloc[list(first.values())].reset_index(drop=True)
    wanted = {key: place for place, key in enumerate(first)}
    return table, (_by_path if names == ["path"] else _by_request)(rows, table, wanted, file)


def _check_filled(table: pd.DataFrame, names: list[str], file: Path) -> None:
    for name in names:
        empty = int((table[name].str.strip() == "").sum())
        if empty:
            raise CxrError(
                f"truth={file}: {empty} of its {len(table)} rows have no {name}; give them one, or leave them out"
            )


def _paths(table: pd.DataFrame, file: Path) -> list[_Key]:
    """The path of each row of a table, by its parts."""
    keys = [PurePath(path).parts for path in table["path"]]
    if () in keys:  # every path would end with it
        raise CxrError(f"truth={file}: {table['path'].iat[keys.index(())]!r} names no file; give a path, or its end")
    return keys


def _requests(table: pd.DataFrame, names: list[str], file: Path) -> list[_Key]:
    """The request of each row of a table, and the number of the image in it if that is told."""
    if "row" not in names:
        return [(request,) for request in table["request_id"]]
    numbers = pd.to_numeric(table["row"], errors="coerce")
    bad = table["row"][~(numbers.ge(0) & (numbers % 1 == 0))]
    if len(bad):
        raise CxrError(f"truth={file}: row {bad.iat[0]!r}: expected a whole number, 0 for the first image of a request")
    return [(request, f"{number:.0f}") for request, number in zip(table["request_id"], numbers, strict=True)]


def _by_path(rows: pd.DataFrame, table: pd.DataFrame, wanted: dict[_Key, int], file: Path) -> list[int]:
    """The row of the table whose path each answer's path ends with."""
    lengths = sorted({len(parts) for parts in wanted}, reverse=True)
    places: list[int] = []
    named_by: dict[int, PurePath] = {}
    for text in rows["path"]:
        path = PurePath(text if isinstance(text, str) else "")  # answers of a service have none
        parts = path.parts
        place = next((wanted[parts[-n:]] for n in lengths if n <= len(parts) and parts[-n:] in wanted), -1)
        if place >= 0 and named_by.setdefault(place, path) != path:
            raise CxrError(
                f"truth={file}: {table['path'].iat[place]} can be {named_by[place]} or {path}; give more of the path"
            )
        places.append(place)
    return places


def _by_request(rows: pd.DataFrame, table: pd.DataFrame, wanted: dict[_Key, int], file: Path) -> list[int]:
    """The row of the table with the request of each answer; predict answers to no request."""
    answers: list[_Key] = [(request,) for request in rows["request_id"]]
    if "row" in key_columns(rows, table):
        answers = [(*answer, f"{row:.0f}") for answer, row in zip(answers, rows["row"].astype(float), strict=True)]
    places = [wanted.get(answer, -1) for answer in answers]
    _check_repeated(rows, table, pd.Series(places, rows.index), file)
    return places


def _check_repeated(rows: pd.DataFrame, table: pd.DataFrame, places: pd.Series, file: Path) -> None:
    """Answers may have a truth in common if they are to one picture: clients and proxies send a request again.

    Raises:
        CxrError: a request had several pictures, or its ID is that of requests with other pictures.
    """
    repeated = places[places.ge(0) & places.duplicated(keep=False)]
    if repeated.empty:
        return
    taken = rows.loc[repeated.index]
    if "row" in rows and "row" not in table:
        several = taken.groupby(repeated)["row"].nunique() > 1
        if several.any():
            request = table["request_id"].iat[several.idxmax()]
            raise CxrError(
                f"truth={file}: request {request} had several images; add a column row, 0 for the first of them"
            )
    seen = taken[list(_OF_PICTURE)].astype(float).groupby(repeated)  # of one that could not be read: NaN, left out
    other = ((seen.max() - seen.min()) > _SAME).any(axis=1)
    if other.any():
        request = table["request_id"].iat[other.idxmax()]
        raise CxrError(
            f"truth={file}: the ID {request} is that of several requests with different images, and names none of "
            "them; leave it out, and let clients send another X-Request-ID with each request, or none"
        )
