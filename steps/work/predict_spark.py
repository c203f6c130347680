"""Engine `spark` of `predict`: the registered model as a user-defined function of a Spark cluster, through MLflow.

Spark is an extra: `pip install -r requirements-spark.txt`, and Java 17. A cluster must see the files under the same
paths, and have the packages of requirements-serve.txt.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import mlflow

from cxr.errors import CxrError
from cxr.serving.service import BATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

_ROWS = 256  # files per partition


def score_with_spark(
    uri: str, columns: dict[str, str], paths: list[str], output: Path, point: str, max_images: int
) -> dict[str, int]:
    """Write one row per path to the folder `output`, in order; returns the number of rows by status.

    `columns` are those of an answer with their types; `max_images` is how many images the model accepts in one request.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
        from pyspark.sql import functions as f
    except ImportError:
        raise CxrError("engine=spark needs Spark: pip install -r requirements-spark.txt, and Java 17") from None

    if output.exists():
        raise CxrError(f"output={output} already exists; remove it, or give another name")
    spark = SparkSession.builder.appName("cxr-predict").getOrCreate()
    # Spark passes one Arrow batch to the model at a time; each is one request, which has an upper limit.
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(min(BATCH, max_images)))
    fields = ", ".join(f"`{name}`:{kind}" for name, kind in columns.items())
    answer = mlflow.pyfunc.spark_udf(
        spark,
        uri,
        result_type=f"struct<{fields}>",
        env_manager="local",
        params={"strict": False, "operating_point": point},
    )
    files = spark.createDataFrame(
        [(index, str(Path(path).resolve()), path) for index, path in enumerate(paths)],
        "i long, file string, path string",
    )
    partitions = max(1, -(-len(paths) // _ROWS))
    images = files.repartitionByRange(partitions, "i").mapInPandas(
        _reader(), "i long, path string, image binary, unread string"
    )
    answers = images.withColumn("answer", answer(f.struct("image")))
    cells = {name: f.col(f"answer.{name}") for name in columns}
    for name in ("label", "decision", "heatmap"):  # MLflow writes the word nan into a text cell that is empty
        cells[name] = f.when(~cells[name].isin("nan", "None"), cells[name])
    cells["reasons"] = f.coalesce(f.col("unread"), cells["reasons"])
    table = answers.sortWithinPartitions("i").select("path", *(cell.alias(name) for name, cell in cells.items()))
    try:
        table.write.parquet(str(output))
        counts = spark.read.parquet(str(output)).groupBy("status").count().collect()
    except PySparkException as error:
        reason = [line for line in str(error).splitlines() if line.strip() and "SQLSTATE" not in line][-1]
        raise CxrError(f"Spark failed: {reason.strip()}") from None
    return {row["status"]: row["count"] for row in counts}


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
