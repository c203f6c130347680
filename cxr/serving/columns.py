"""Columns of a stored table of answers, and their types in Parquet."""

import pyarrow as pa

from cxr.serving.service import MEASURED

TIME = "time"  # when an image was answered, UTC
_ARROW = {
    "string": pa.string(),
    "double": pa.float64(),
    "integer": pa.int32(),
    "datetime": pa.timestamp("us", tz="UTC"),
}


def arrow_schema(columns: dict[str, str]) -> pa.Schema:
    """Schema of a table of answers: `columns` by MLflow's types, then `MEASURED` and the time of the answer."""
    return pa.schema({name: _ARROW[kind] for name, kind in (columns | MEASURED | {TIME: "datetime"}).items()})
