"""Work that is spread over a Spark cluster.

Spark is an extra: `pip install -r requirements-spark.txt`, and Java 17. Workers must see files under the same paths as
this machine, and have the packages of requirements.txt; the code of this package is sent to them.
"""

import atexit
import pickle  # nosec B403  # of what this module has pickled itself
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cxr.errors import CxrError

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import SparkSession

_PACKAGE = Path(__file__).resolve().parents[1]
_PARTITION = 32  # items of a task
# Items whose results this machine collects at once: a million at once would exceed spark.driver.maxResultSize.
_JOB = 1 << 15
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def session(name: str) -> "SparkSession":
    """The Spark session of this process; made under this name where there is none.

    Raises:
        CxrError: pyspark or Java is missing, or the cluster cannot be reached.
    """
    try:
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError:
        raise CxrError("engine=spark needs Spark: pip install -r requirements-spark.txt, and Java 17") from None
    with in_one_line():
        try:
            return SparkSession.builder.appName(name).getOrCreate()
        except PySparkRuntimeError as error:
            if error.getCondition() != "JAVA_GATEWAY_EXITED":
                raise
            raise CxrError(
                "engine=spark needs Java 17, and no Java could be started; install it, or set JAVA_HOME to its folder"
            ) from None


@contextmanager
def in_one_line() -> Iterator[None]:
    """Around work of Spark: its errors become a `CxrError` with the last line of what it says."""
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip() and "SQLSTATE" not in line]
        raise CxrError(f"Spark failed: {lines[-1] if lines else type(error).__name__}") from None


def mapped(function: Callable[[_Item], _Result], items: Sequence[_Item], name: str) -> Iterator[_Result]:
    """Apply a function of this package to items on the workers.

    Args:
        function: picklable; the workers import it.
        items: picklable, each of a few bytes.
        name: of the session, if there is none.

    Yields:
        The results, in the order of the items.

    Raises:
        CxrError: as of `session`, or the work failed on a worker.
    """
    spark = session(name)
    with in_one_line():
        _send_code(spark)
        for start in range(0, len(items), _JOB):
            rows = [(number, pickle.dumps(item)) for number, item in enumerate(items[start : start + _JOB])]
            frame = spark.createDataFrame(rows, "number long, item binary")
            frame = frame.repartitionByRange(-(-len(rows) // _PARTITION), "number")
            done = frame.mapInPandas(_applied(function), "number long, result binary").collect()
            for row in sorted(done, key=lambda row: row["number"]):
                yield pickle.loads(row["result"])  # noqa: S301  # nosec B301  # by `apply`, below


def _applied(function: Callable[[Any], Any]) -> "Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]":
    """The function, for whole tables of pickled items."""

    def apply(tables: "Iterator[pd.DataFrame]") -> "Iterator[pd.DataFrame]":
        for table in tables:
            items = [pickle.loads(item) for item in table["item"]]  # noqa: S301  # nosec B301  # by `mapped`, above
            yield table[["number"]].assign(result=[pickle.dumps(function(item)) for item in items])

    return apply


def _send_code(spark: "SparkSession") -> None:
    """Let the workers import this package. They fetch the archive while the session lasts."""
    folder = Path(tempfile.mkdtemp(prefix="cxr-spark-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    archive = shutil.make_archive(str(folder / folder.name), "zip", _PACKAGE.parent, _PACKAGE.name)
    spark.sparkContext.addPyFile(archive)
