"""Reads the answers of a version in use: what `predict` writes, or the log of answers of a service."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from cxr.errors import CxrError
from cxr.monitoring.reference import Reference, column_names
from cxr.serving.columns import TIME

KEYS = ("path", "request_id", "row")  # columns that name an image, as far as they are there
_ANSWER = ("status", "reasons", "operating_point", "model_version", TIME)
_LISTED = 3


@dataclass(frozen=True)
class Answers:
    """Answers of one version, in the order of their times.

    Attributes:
        rows: `KEYS` as far as they are there, the numbers of `column_names`, status, reasons, operating point and
            `time`, UTC.
        files: number of files they were read from.
        others: number of answers of other versions that are left out, by version.
        outside: number of answers before or after the period that are left out.
    """

    rows: pd.DataFrame
    files: int
    others: dict[str, int]
    outside: int


def moment(text: str, name: str, *, end: bool = False) -> pd.Timestamp:
    """The time that a date (its beginning; with `end`, the beginning of the next day) or an ISO 8601 time stands for.

    Dates are days in UTC; a time needs a zone, since nothing says whose clock it is.
    """
    try:
        if len(text) == len("2026-11-01"):
            day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
            return pd.Timestamp(day + timedelta(days=1) if end else day)
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise CxrError(f"{name}={text}: expected a date or a time, such as 2026-11-01 or 2026-11-01T08:00Z") from None
    if time.tzinfo is None:
        raise CxrError(f"{name}={text}: a time without a zone; add it, as in {text}Z or {text}+01:00")
    return pd.Timestamp(time.astimezone(UTC))


def read(
    source: Path,
    reference: Reference,
    version: str,
    since: pd.Timestamp | None = None,
    until: pd.Timestamp | None = None,
) -> Answers:
    """Read the answers of `version` from `since` on, before `until`, from a Parquet file or all below a folder.

    Raises:
        CxrError: there is no such file, a table lacks columns or has times without a zone, or there are no answers of
            this version in this time.
    """
    numbers = column_names(tuple(reference.classes), reference.finding)
    files = _files(source)
    rows = pd.concat([_read(file, [*numbers, *_ANSWER]) for file in files], ignore_index=True)
    versions = rows.pop("model_version")
    others = {str(name): int(count) for name, count in versions[versions != version].value_counts().items()}
    rows = rows[versions == version]
    if rows.empty:
        told = f"answers of version {', '.join(sorted(others))}" if others else "no answers"
        raise CxrError(
            f"input={source} has {told}, and none of version {version}; name the version that answered: "
            "-P model_uri=models:/NAME/VERSION"
        )
    inside = pd.Series(True, rows.index)
    inside &= True if since is None else rows[TIME] >= since
    inside &= True if until is None else rows[TIME] < until
    if not inside.any():
        first, last = rows[TIME].min(), rows[TIME].max()
        raise CxrError(
            f"input={source}: none of its {len(rows)} answers of version {version} is in the time asked for; they are "
            f"from {first:%Y-%m-%dT%H:%MZ} to {last:%Y-%m-%dT%H:%MZ}"
        )
    kept = rows[inside].sort_values(TIME, kind="stable").reset_index(drop=True)
    return Answers(kept, len(files), others, int((~inside).sum()))


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        files = sorted(_below(source))
        if not files:
            raise CxrError(f"input={source}: no .parquet files below it")
        return files
    if not source.is_file():
        raise CxrError(
            f"input={source} does not exist; give a file that predict wrote, or the folder that CXR_ANSWERS named"
        )
    return [source]


def _below(folder: Path) -> Iterator[Path]:
    """Parquet files, without those that are still being written and the shards of an unfinished prediction."""
    for file in folder.rglob("*.parquet"):
        parts = file.relative_to(folder).parts
        if not any(part.startswith((".", "_")) or part.endswith(".shards") for part in parts):
            yield file


def _read(file: Path, wanted: list[str]) -> pd.DataFrame:
    """The columns `wanted` of a file, and the `KEYS` that it has."""
    try:
        schema = parquet.read_schema(file)
        missing = [name for name in wanted if name not in schema.names]
        if missing:
            raise CxrError(
                f"{file} lacks {_some(missing)}: it was written before answers had what monitoring needs, or by a "
                "model of other classes; score the images again with predict"
            )
        kind = schema.field(TIME).type
        if not pa.types.is_timestamp(kind) or kind.tz is None:
            raise CxrError(
                f"{file}: its column {TIME} has no time zone ({kind}); expected times in UTC, as predict writes them"
            )
        keys = [name for name in KEYS if name in schema.names]
        rows = parquet.read_table(file, columns=[*keys, *wanted]).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise CxrError(f"{file}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None
    if rows[TIME].isna().any():
        without_time = int(rows[TIME].isna().sum())
        raise CxrError(f"{file}: {without_time} of its {len(rows)} rows have no {TIME}; give them one, in UTC")
    rows[TIME] = rows[TIME].dt.tz_convert("UTC").astype("datetime64[us, UTC]")  # one unit and zone for all files
    return rows.assign(
        model_version=rows["model_version"].astype(str),
        reasons=rows["reasons"].fillna("").astype(str),
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"the columns {', '.join(names[:_LISTED])}{more}" if len(names) > 1 else f"the column {names[0]}"
