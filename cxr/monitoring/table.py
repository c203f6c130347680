"""Reads the answers of a version in use: what `predict` writes, or the log of answers of a service."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet

from cxr.errors import CxrError
from cxr.monitoring.reference import Reference, column_names
from cxr.serving.answers import span
from cxr.serving.columns import TIME

KEYS = ("path", "request_id", "row")  # columns that name an image, as far as they are there
_VERSION = "model_version"
_UNKNOWN = "unknown"  # version of answers that do not name one
_ANSWER = ("status", "reasons", "operating_point", TIME)
_TEXTS = ("path", "request_id", _VERSION, *_ANSWER)
_KINDS = {name: pa.string() for name in _TEXTS} | {TIME: pa.timestamp("us", tz="UTC")}
_MINUTE = "%Y-%m-%dT%H:%MZ"
_LISTED = 3


@dataclass(frozen=True)
class Answers:
    """Answers of one version, in the order of their times.

    Attributes:
        rows: `KEYS` as far as they are there, the numbers of `column_names`, status, reasons, operating point and
            `time`, UTC.
        files: number of files they were read from.
        others: number of answers of other versions that are left out, by version.
        outside: number of answers before or after the period that are left out, of the files that were read.
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
        if time.tzinfo is not None:
            return pd.Timestamp(time.astimezone(UTC))
    except (ValueError, OverflowError):
        raise CxrError(f"{name}={text}: expected a date or a time, such as 2026-11-01 or 2026-11-01T08:00Z") from None
    raise CxrError(f"{name}={text}: a time without a zone; add it, as in {text}Z or {text}+01:00")


def read(
    source: Path,
    reference: Reference,
    version: str,
    since: pd.Timestamp | None = None,
    until: pd.Timestamp | None = None,
) -> Answers:
    """Read the answers of `version` from `since` on, before `until`, from a Parquet file or all below a folder.

    Of the log of a service, only files of this time are opened, and of those without answers of `version` only the
    versions are read. Memory goes with the answers that are kept.

    Raises:
        CxrError: there is no such file, a table with answers of this version lacks columns or has times without a zone,
            or there are no answers of this version in this time.
    """
    numbers = column_names(tuple(reference.classes), reference.finding)
    files = _files(source, since, until)
    kept: list[pa.Table] = []
    answered: Counter[str] = Counter()
    outside, times = 0, []
    for file in files:
        versions = _versions(file)
        answered.update({row["values"]: row["counts"] for row in versions.value_counts().to_pylist()})
        own = pc.equal(versions, version)
        if not pc.any(own).as_py():
            continue  # versions of other classes have other columns, and those of other times may lack some
        table = _read(file, numbers, own)
        times += pc.min_max(table[TIME]).as_py().values()
        inside = table
        if since is not None:
            inside = inside.filter(pc.greater_equal(inside[TIME], pa.scalar(since, _KINDS[TIME])))
        if until is not None:
            inside = inside.filter(pc.less(inside[TIME], pa.scalar(until, _KINDS[TIME])))
        outside += table.num_rows - inside.num_rows
        kept += [inside] if inside.num_rows else []
    count = answered.pop(version, 0)
    if not count:
        told = f"answers of version {', '.join(sorted(answered))}" if answered else "no answers"
        when = "" if since is None and until is None else " in its files of the time asked for"
        raise CxrError(
            f"input={source} has {told}{when}, and none of version {version}; name the version that answered: "
            "-P model_uri=models:/NAME/VERSION"
        )
    if not kept:
        raise CxrError(
            f"input={source}: none of its {count} answers of version {version} is in the time asked for; they are "
            f"from {min(times):{_MINUTE}} to {max(times):{_MINUTE}}"
        )
    rows = pa.concat_tables(kept, promote_options="permissive").to_pandas()
    rows[TIME] = rows[TIME].astype("datetime64[us, UTC]")
    return Answers(rows.sort_values(TIME, kind="stable", ignore_index=True), len(files), dict(answered), outside)


def _files(source: Path, since: pd.Timestamp | None, until: pd.Timestamp | None) -> list[Path]:
    try:
        is_folder, is_file = source.is_dir(), source.is_file()
    except OSError as error:  # a folder above it that may not be entered
        raise _unreadable(source, error) from None
    if is_folder:
        files = sorted(_below(source))
        if not files:
            raise CxrError(f"input={source}: no .parquet files below it")
        inside = [file for file in files if _may_hold(span(file), since, until)]
        if not inside:
            spans = [found for file in files if (found := span(file)) is not None]
            first, last = min(begin for begin, _ in spans), max(end for _, end in spans)
            raise CxrError(
                f"input={source}: none of its {len(files)} files is of the time asked for; they are from "
                f"{first:{_MINUTE}} to {last:{_MINUTE}}"
            )
        return inside
    if not is_file:
        raise CxrError(
            f"input={source} does not exist; give a file that predict wrote, or the folder that CXR_ANSWERS named"
        )
    return [source]


def _may_hold(times: tuple[datetime, datetime] | None, since: datetime | None, until: datetime | None) -> bool:
    """Whether a file with answers between two times, None for any, may have some that are asked for."""
    if times is None:
        return True
    return (since is None or times[1] >= since) and (until is None or times[0] < until)


def _below(folder: Path) -> Iterator[Path]:
    """Parquet files, without those that are still being written and the shards of an unfinished prediction.

    Raises:
        CxrError: a folder cannot be read. Left out in silence, its days would pass for days without answers.
    """

    def refuse(error: OSError) -> None:
        raise _unreadable(error.filename or folder, error)

    for above, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not _is_left_out(name)]
        yield from (Path(above, name) for name in names if name.endswith(".parquet") and not _is_left_out(name))


def _is_left_out(name: str) -> bool:
    """Whether a file or folder holds no finished answers; `lost+found` is where a disk is mounted, for root alone."""
    return name.startswith((".", "_")) or name.endswith(".shards") or name == "lost+found"


def _unreadable(place: str | Path, error: OSError) -> CxrError:
    if isinstance(error, PermissionError):
        return CxrError(f"{place} may not be read; run as the user who wrote it: that of the service, or of predict")
    return CxrError(f"{place} cannot be read ({error.strerror or error}); mend that, or give another input")


def _versions(file: Path) -> pa.ChunkedArray:
    """The version that gave each answer of a file."""
    with _readable(file):
        if _VERSION not in parquet.read_schema(file).names:
            raise _lacking(file, [_VERSION])
        versions = parquet.read_table(file, columns=[_VERSION])[_VERSION]
        versions = versions.cast(_KINDS[_VERSION], safe=False).fill_null("")
        return pc.if_else(pc.equal(versions, ""), _UNKNOWN, versions)


def _read(file: Path, numbers: list[str], own: pa.ChunkedArray) -> pa.Table:
    """The columns that monitoring needs of a file, and the `KEYS` that it has, in one type for all files.

    Of the rows that are `own` alone, so that what the others lack does not matter.
    """
    wanted = [*numbers, *_ANSWER]
    with _readable(file):
        schema = parquet.read_schema(file)
        missing = [name for name in wanted if name not in schema.names]
        if missing:
            raise _lacking(file, missing)
        kind = schema.field(TIME).type
        if not pa.types.is_timestamp(kind) or kind.tz is None:
            raise CxrError(
                f"{file}: its column {TIME} has no time zone ({kind}); expected times in UTC, as predict writes them"
            )
        keys = [name for name in KEYS if name in schema.names]
        table = parquet.read_table(file, columns=[*keys, *wanted]).filter(own)
        kinds = {field.name: field.type for field in table.schema} | dict.fromkeys(numbers, pa.float64())
        kinds |= {name: kind for name, kind in _KINDS.items() if name in kinds}
        table = table.cast(pa.schema(list(kinds.items())), safe=False)  # nanoseconds become microseconds
    if table[TIME].null_count:
        without_time = table[TIME].null_count
        raise CxrError(f"{file}: {without_time} of its {table.num_rows} answers have no {TIME}; give them one, in UTC")
    return table.set_column(table.schema.get_field_index("reasons"), "reasons", table["reasons"].fill_null(""))


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Tells in one line why a file cannot be read."""
    try:
        yield
    except PermissionError as error:
        raise _unreadable(file, error) from None
    except (pa.ArrowException, OSError) as error:
        raise CxrError(f"{file}: not a Parquet file that can be read ({str(error).splitlines()[0]})") from None


def _lacking(file: Path, missing: list[str]) -> CxrError:
    return CxrError(
        f"{file} lacks {_some(missing)}: it was written before answers had what monitoring needs, or by a "
        "model of other classes; score the images again with predict"
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"the columns {', '.join(names[:_LISTED])}{more}" if len(names) > 1 else f"the column {names[0]}"
