"""The engine `spark` of `predict`: the registered model as a function of a Spark cluster, through MLflow.

Spark is an extra: `pip install -r requirements-spark.txt`, and Java 17. A cluster must see the files under the same
paths, and have the packages of requirements-serve.txt.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import CxrError
from cxr.serving.service import BATCH, kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

_ROWS = 256  # files of a partition


def score_with_spark(
    uri: str, classes: tuple[str, ...], paths: list[str], output: Path, point: str, most: int
) -> dict[str, int]:
    """Write one row a path to the folder `output`, in order; returns the number of rows by status.

    `most` is how many pictures the model takes in one request.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
        from pyspark.sql import functions as f
    except ImportError:
        raise CxrError("engine=spark needs Spark: pip install -r requirements-spark.txt, and Java 17") from None
    import mlflow

    if output.exists():
        raise CxrError(f"output={output} exists already; remove it, or give another name")
    spark = SparkSession.builder.appName("cxr-predict").getOrCreate()
    # What Spark hands over at once is one request to the model.
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(min(BATCH, most)))
    columns = kinds(classes)
    fields = ", ".join(f"`{name}`:{kind}" for name, kind in columns.items())
    answer = mlflow.pyfunc.spark_udf(
        spark, uri, result_type=f"struct<{fields}>", env_manager="local",
        params={"strict": False, "operating_point": point},
    )  # fmt: skip
    rows = spark.createDataFrame(
        [(i, str(Path(p).resolve()), p) for i, p in enumerate(paths)], "i long, file string, path string"
    )
    rows = rows.repartitionByRange(max(1, -(-len(paths) // _ROWS)), "i")
    read = rows.mapInPandas(_reader(), "i long, path string, image binary, unread string")
    told = read.withColumn("told", answer(f.struct("image")))
    cells = {name: f.col(f"told.{name}") for name in columns}
    for name in ("label", "decision", "heatmap"):  # MLflow writes the word nan into a text cell that is empty
        cells[name] = f.when(~cells[name].isin("nan", "None"), cells[name])
    cells["reasons"] = f.coalesce(f.col("unread"), cells["reasons"])
    table = told.sortWithinPartitions("i").select("path", *(cell.alias(name) for name, cell in cells.items()))
    try:
        table.write.parquet(str(output))
        counted = spark.read.parquet(str(output)).groupBy("status").count().collect()
    except PySparkException as error:
        line = [line for line in str(error).splitlines() if line.strip() and "SQLSTATE" not in line][-1]
        raise CxrError(f"Spark failed: {line.strip()}") from None
    return {row["status"]: row["count"] for row in counted}


def _reader() -> "Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]":
    """Files to their bytes; a file that cannot be read is an empty cell, and the reason.

    A function inside another travels to the workers by value: they need not have this project.
    """

    def read(tables):
        for table in tables:
            images, unread = [], []
            for file in table["file"]:
                try:
                    images.append(Path(file).read_bytes())
                    unread.append(None)
                except (OSError, ValueError) as error:
                    images.append(None)
                    unread.append(getattr(error, "strerror", None) or str(error))
            yield table[["i", "path"]].assign(image=images, unread=unread)

    return read
