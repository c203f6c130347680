"""Engine `spark` of `predict` and `validate`: the registered model as a function of a Spark cluster, through MLflow.

Spark is an extra: `pip install -r requirements-spark.txt`, and Java 17. A cluster must see the files under the same
paths, and have the packages of requirements-serve.txt. The time of each answer is that at which Spark began.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from pyarrow import parquet

from cxr.common import spark
from cxr.errors import CxrError
from cxr.serving.columns import TIME, arrow_schema
from cxr.serving.service import BATCH, MEASURED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

log = logging.getLogger("cxr.predict")

_ROWS = 256  # files per partition
_MEASURED = "measured"  # parameter of the model that adds the columns MEASURED to an answer


def score_with_spark(
    uri: str, columns: dict[str, str], paths: list[str], output: Path, point: str, max_images: int
) -> dict[str, int]:
    """Let the workers write one row per path to the folder `output`, in order; returns the number of rows by status.

    `columns` are those of an answer with their types; `MEASURED` and the time are added, unless the version was made
    before its signature could ask for them. `max_images` is how many images the model accepts in one request.
    """
    session = spark.session("cxr-predict")
    if output.exists():
        raise CxrError(f"output={output} already exists; remove it, or give another name")
    with spark.in_one_line():
        _answers(session, uri, columns, paths, point, max_images).write.parquet(str(output))
        counts = session.read.parquet(str(output)).groupBy("status").count().collect()
    return {row["status"]: row["count"] for row in counts}


def collect_from_spark(
    uri: str, columns: dict[str, str], paths: list[str], output: Path, point: str, max_images: int
) -> None:
    """Write the same rows to the file `output` of this machine, as `cxr.serving.batch.score` does.

    Raises:
        CxrError: the version was made before its signature could ask for `MEASURED`.
    """
    session = spark.session("cxr-validate")
    if not _has_parameter(uri, _MEASURED):
        raise CxrError(
            f"{uri} does not tell Spark how far images are from its training; leave engine=spark out, or make a "
            "version that does: mlflow run . -e repackage"
        )
    with spark.in_one_line():
        table = _answers(session, uri, columns, paths, point, max_images).toArrow()
    parquet.write_table(table.cast(arrow_schema({"path": "string"} | columns)), output)


def _answers(
    session: "SparkSession", uri: str, columns: dict[str, str], paths: list[str], point: str, max_images: int
) -> "DataFrame":
    """One row per path, in order."""
    from pyspark.sql import functions as f

    # Spark passes one Arrow batch to the model at a time; each is one request, which has an upper limit.
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(min(BATCH, max_images)))
    # Spark's older type of a time is read as one without a zone, which `monitor` refuses.
    session.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    measured = MEASURED if _has_parameter(uri, _MEASURED) else {}
    if not measured:
        log.warning("%s answers without what monitor needs; mlflow run . -e repackage makes a version that does", uri)
    # As doubles, since MLflow cannot convert whole numbers of which some are missing.
    fields = ", ".join(f"`{name}`:{kind}" for name, kind in (columns | dict.fromkeys(measured, "double")).items())
    answer = mlflow.pyfunc.spark_udf(
        session,
        uri,
        result_type=f"struct<{fields}>",
        env_manager="local",
        params={"strict": False, "operating_point": point} | ({_MEASURED: True} if measured else {}),
    )
    files = session.createDataFrame(
        [(index, str(Path(path).resolve()), path) for index, path in enumerate(paths)],
        "i long, file string, path string",
    )
    partitions = max(1, -(-len(paths) // _ROWS))
    images = files.repartitionByRange(partitions, "i").mapInPandas(
        _reader(), "i long, path string, image binary, unread string"
    )
    answers = images.withColumn("answer", answer(f.struct("image")))
    cells = {name: f.col(f"answer.{name}") for name in (*columns, *measured)}
    for name in ("label", "decision", "heatmap"):  # MLflow writes the word nan into a text cell that is empty
        cells[name] = f.when(~cells[name].isin("nan", "None"), cells[name])
    cells["reasons"] = f.coalesce(f.col("unread"), cells["reasons"])
    for name, kind in measured.items():
        cells[name] = f.when(~f.isnan(cells[name]), cells[name]).cast(kind)
    if measured:
        cells[TIME] = f.current_timestamp()
    return answers.sortWithinPartitions("i").select("path", *(cell.alias(name) for name, cell in cells.items()))


def _has_parameter(uri: str, name: str) -> bool:
    """Whether the signature of a model has a parameter of this name."""
    signature = mlflow.models.get_model_info(uri).signature
    return signature is not None and signature.params is not None and name in [p.name for p in signature.params]


def _reader() -> "Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]":
    """Function that reads files to bytes; an unreadable file becomes an empty cell with the reason beside it.

    A function defined inside another one is pickled by value: the workers need not have this project.
    """

    def read(tables: "Iterator[pd.DataFrame]") -> "Iterator[pd.DataFrame]":
        for table in tables:
            images: list[bytes | None] = []
            unread: list[str | None] = []
            for file in table["file"]:
                try:
                    images.append(Path(file).read_bytes())
                    unread.append(None)
                except (OSError, ValueError) as error:
                    images.append(None)
                    unread.append(getattr(error, "strerror", None) or str(error))
            yield table[["i", "path"]].assign(image=images, unread=unread)

    return read
