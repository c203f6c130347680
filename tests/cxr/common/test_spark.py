"""Work on Spark: results in order, in several jobs; one line where Spark, Java or the work itself fails."""

import subprocess
import sys

import pytest

from cxr.common import code, spark
from cxr.common.names import printable
from cxr.errors import CxrError


@pytest.fixture
def pyspark():
    return pytest.importorskip("pyspark", reason="an extra: pip install -r requirements-spark.txt")


def test_without_spark_one_line_says_what_to_install(monkeypatch):
    for name in ("pyspark", "pyspark.errors", "pyspark.sql"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CxrError, match=r"^engine=spark needs Spark: pip install -r requirements-spark\.txt"):
        list(spark.mapped(printable, ["a"], "test"))


def test_without_java_one_line_says_so(pyspark, monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "none"))
    told = (
        "from cxr.common import spark; from cxr.errors import CxrError\n"
        "try: spark.session('test')\n"
        "except CxrError as error: print(error)"
    )
    command = [sys.executable, "-c", told]
    done = subprocess.run(command, cwd=code.PROJECT, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == (
        "engine=spark needs Java 17, and no Java could be started; install it, or set JAVA_HOME to its folder\n"
    )


def test_results_come_in_the_order_of_the_items(pyspark, monkeypatch):
    monkeypatch.setattr(spark, "_JOB", 50)
    monkeypatch.setattr(spark, "_PARTITION", 8)
    names = [f"{number}\n\udcff" for number in range(120)]
    assert list(spark.mapped(printable, names, "test")) == [f"{number}\\n\\udcff" for number in range(120)]
    assert list(spark.mapped(printable, [], "test")) == []


def test_what_fails_on_a_worker_is_told_in_one_line(pyspark):
    with pytest.raises(CxrError, match=r"^Spark failed: ValueError: invalid literal for int\(\) with base 10: 'x'$"):
        list(spark.mapped(int, ["1", "x"], "test"))
