"""Tables of labels as other people keep them: CSV, TSV, Parquet and Excel files, read as text.

Every cell stays what the file says: patient `00000001` keeps its zeros. Only whole numbers lose a decimal point that
their column owes to missing values (`1.0` is `1`).
"""

import io
import re
import warnings
from collections.abc import Iterable

import pandas as pd
from pandas.errors import ParserWarning

from cxr.common.names import printable
from cxr.common.storage import Place, why_missing
from cxr.errors import CxrError, in_short

SUFFIXES = (".csv", ".tsv", ".parquet", ".xlsx")
_LISTED = 5  # examples that a message shows
_MAX_AGE = 130  # years; older tables of ChestX-ray14 have ages above 400
_PER_YEAR = {"y": 1, "m": 12, "w": 365.25 / 7, "d": 365.25}
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([ymwd])[a-z]*)?", re.IGNORECASE)
_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female", "u": "", "unknown": ""}


def read(file: Place) -> pd.DataFrame:
    """Read a table; its suffix decides how.

    Returns:
        Text in every cell, without blanks around it; empty where a value is missing.

    Raises:
        CxrError: the file does not exist, is of another kind, cannot be read, or has no rows.
    """
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise CxrError(f"table of labels {file}: expected a file that ends in {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise CxrError(
            f"table of labels {file} {why_missing(file)}; give data.labels as an absolute path or a URL, or as a path "
            "below the data folder"
        )
    try:
        table = _parse(io.BytesIO(file.read_bytes()), suffix)
    except CxrError:  # of a store that cannot be reached
        raise
    except Exception as error:  # the parsers of four formats raise many types
        raise CxrError(f"table of labels {file} cannot be read ({in_short(error)}); save it again as UTF-8") from None
    if table.empty:
        raise CxrError(f"table of labels {file} has no rows below its header")
    table.columns = [str(name).strip() for name in table.columns]
    return table.apply(_as_text)


def column(table: pd.DataFrame, name: str, key: str, file: Place | str) -> pd.Series:
    """The column `name`, which the setting `key` asks for; raises `CxrError` with those that there are."""
    if name not in table:
        raise CxrError(f"{file} has no column {name!r}, which {key} names; its columns are {', '.join(table.columns)}")
    return table[name]


def age(text: str) -> float | None:
    """Years of an age such as `30`, `058Y` or `6M` (months, weeks or days); None for what is no age."""
    match = _AGE.fullmatch(text)
    if match is None:
        return None
    years = float(match[1]) / _PER_YEAR[(match[2] or "y").lower()]
    return round(years, 3) if years <= _MAX_AGE else None


def sex(text: str) -> str:
    """`male`, `female`, or any other word as it is; empty if unknown."""
    return _SEXES.get(text.lower(), text)


def examples(items: Iterable[object]) -> str:
    """The first five of several things, and how many more there are."""
    shown = [printable(item) for item in items]
    more = f" and {len(shown) - _LISTED:,} more" if len(shown) > _LISTED else ""
    return ", ".join(shown[:_LISTED]) + more


def _parse(file: io.BytesIO, suffix: str) -> pd.DataFrame:
    if suffix == ".parquet":
        return pd.read_parquet(file)
    if suffix == ".xlsx":
        return pd.read_excel(file, dtype=object)
    header = io.TextIOWrapper(io.BytesIO(file.getvalue()), encoding="utf-8-sig").readline()
    # Where a comma is the decimal sign, CSV files are written with semicolons.
    separator = "\t" if suffix == ".tsv" else max(",;", key=header.count)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ParserWarning)  # rows with more cells than the header
        # Without `index_col`, such rows shift all columns.
        return pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)


def _as_text(values: pd.Series) -> pd.Series:
    text = values.astype(object).where(values.notna(), "").map(str).str.strip()
    return text.str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)
