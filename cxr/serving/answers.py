"""The log of answers of a service, for monitoring: `CXR_ANSWERS=FOLDER`, Parquet, one row for each image.

A row has the ID of the request and the number of the image in it, the time, the answer without its heatmap, distance,
brightness and size; no picture and nothing of a patient. Rows wait in memory and are written by a thread of their own,
each file whole, into a folder for each day (UTC) that only the user of the service can read. The name of a file has the
time of its first row and the seconds to its last: `FOLDER/2026-11-28/081500-31s-3f2a91c0-000001.parquet`. Few rows wait
longer, so that little traffic makes few files: a process that is killed loses the rows of half a minute, `EVERY_S`, or
less than `FEW_ROWS`. No request waits for the disk and none fails by it: rows that cannot be written are left out,
which the log of the service says and `/metrics` counts.
"""

import atexit
import logging
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cxr.common.files import make_folder, write_atomic
from cxr.errors import CxrError
from cxr.serving.service import MEASURED, column_types

if TYPE_CHECKING:
    from cxr.serving.service import Service

VARIABLE = "CXR_ANSWERS"
EVERY_S = 30.0  # from an answer to its file, at most
SELDOM_S = 300.0  # the same where fewer than FEW_ROWS wait: at most 288 files a day, and one for each FEW_ROWS
FEW_ROWS = 100
FILE_ROWS = 2000  # rows from which a file is written earlier
MOST_ROWS = 100_000  # rows that wait at most, some 50 MB: more arrive only while the disk stands still
AGAIN_S = 600.0  # between two lines on what is left out
_PRIVATE, _PRIVATE_FILE = 0o700, 0o600
_NAME = re.compile(r"(\d{4}-\d\d-\d\d) (\d{6})-(\d+)s-[0-9a-f]{8}-\d{6}\.parquet")

log = logging.getLogger("cxr.serving")


def _nobody(_: int) -> None:
    return None


class AnswerLog:
    """Writes answers of one process. Thread-safe.

    Args:
        folder: made, readable by this user alone, if it is absent.
        columns: those of an answer, with MLflow's types (see `cxr.serving.service.column_types`).
        lost: told how many answers were left out, each time, from any thread.
        every_s: seconds after which waiting rows are written.
        seldom_s: the same for fewer than `FEW_ROWS`.
    """

    def __init__(
        self,
        folder: Path,
        columns: dict[str, str],
        lost: Callable[[int], object] = _nobody,
        every_s: float = EVERY_S,
        seldom_s: float = SELDOM_S,
    ):
        from cxr.serving.columns import arrow_schema  # pyarrow takes memory that other services save

        kept = {name: kind for name, kind in columns.items() if name != "heatmap"}
        self._schema = arrow_schema({"request_id": "string", "row": "integer"} | kept)
        self._folder, self._columns, self._lost = folder, [*kept, *MEASURED], lost
        self._every_s, self._seldom_s = every_s, seldom_s
        self._process, self._files = secrets.token_hex(4), 0  # processes of containers all have the same number
        self._waiting: list[pd.DataFrame] = []
        self._rows, self._since = 0, 0.0  # of all that wait, and since when
        self._lock, self._wake, self._writing = threading.Lock(), threading.Event(), threading.Lock()
        self._closed = False
        self._told: dict[str, float] = {}  # when what was told of
        self._untold: dict[str, int] = {}  # answers that have been left out since
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def add(self, answers: pd.DataFrame, request_id: str) -> None:
        """Keep the answers of a request, with the columns `MEASURED`, for the thread that writes; never raises."""
        try:
            if answers.empty:
                return
            table = answers[self._columns].assign(
                request_id=request_id, row=range(len(answers)), time=datetime.now(UTC)
            )
            with self._lock:
                room = self._rows + len(table) <= MOST_ROWS
                if room:
                    self._since = self._since if self._waiting else time.monotonic()
                    self._waiting.append(table)
                    self._rows += len(table)
                many = self._rows >= FILE_ROWS
            if not room:
                self._tell("loss", "more answers wait than can be written", len(table))
            if many:
                self._wake.set()
        except Exception as error:  # of the log, which must not become one of the request
            self._tell_of_error(error, len(answers) if isinstance(answers, pd.DataFrame) else 1)

    def close(self) -> None:
        """Write what waits, and stop."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=10)
        self.write()

    def write(self) -> None:
        """Write the waiting rows into a file."""
        with self._writing:
            with self._lock:
                tables, self._waiting, self._rows = self._waiting, [], 0
            if not tables:
                return
            try:
                self._write(tables)
            except Exception as error:  # a full disk, a folder that was taken away
                self._tell_of_error(error, sum(map(len, tables)))

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self._every_s)
            self._wake.clear()
            with self._lock:
                long = bool(self._waiting) and time.monotonic() - self._since >= self._seldom_s
                is_due = long or self._rows >= FEW_ROWS
            if is_due or self._closed:
                self.write()

    def _write(self, tables: list[pd.DataFrame]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        rows = pd.concat([table.astype(object) for table in tables], ignore_index=True)
        table = pa.Table.from_pandas(rows, self._schema, preserve_index=False)
        times: list[datetime] = [one["time"].iat[0].to_pydatetime() for one in tables]
        self._files += 1
        file = self._folder / file_name(min(times), max(times), self._process, self._files)
        make_folder(self._folder, _PRIVATE)
        make_folder(file.parent, _PRIVATE)
        write_atomic(file, partial(parquet.write_table, table), mode=_PRIVATE_FILE)

    def _tell_of_error(self, error: Exception, rows: int) -> None:
        self._tell("error", str(error) if isinstance(error, CxrError) else f"{type(error).__name__}: {error}", rows)

    def _tell(self, kind: str, why: str, rows: int) -> None:
        """Count answers that are left out, and say so unless that was said a short time ago."""
        self._lost(rows)
        now = time.monotonic()
        with self._lock:
            rows += self._untold.get(kind, 0)
            is_told = kind in self._told and now - self._told[kind] < AGAIN_S
            self._untold[kind] = rows if is_told else 0
            self._told[kind] = self._told[kind] if is_told else now
        if not is_told:
            log.error("%s: %d answers are left out of the log of answers (%s)", VARIABLE, rows, why)


def file_name(first: datetime, last: datetime, process: str, number: int) -> str:
    """Name, with the folder of its day, of a file with the answers of this time."""
    begin = first.astimezone(UTC).replace(microsecond=0)
    seconds = math.ceil((last - begin).total_seconds())
    return f"{begin:%Y-%m-%d}/{begin:%H%M%S}-{seconds}s-{process}-{number:06d}.parquet"


def span(file: Path) -> tuple[datetime, datetime] | None:
    """Between which times, UTC, the answers in a file of the log are; None if its name does not say so."""
    found = _NAME.fullmatch(f"{file.parent.name} {file.name}")
    if found is None:
        return None
    try:
        begin = datetime.strptime(f"{found[1]} {found[2]}", "%Y-%m-%d %H%M%S").replace(tzinfo=UTC)
        return begin, begin + timedelta(seconds=int(found[3]))
    except (ValueError, OverflowError):
        return None


def opened(service: "Service", lost: Callable[[int], object] = _nobody) -> AnswerLog | None:
    """The log that the environment asks for; None without `CXR_ANSWERS`. For `lost`, see `AnswerLog`."""
    folder = os.environ.get(VARIABLE, "").strip()
    if not folder:
        return None
    log.info("answers are kept in %s", folder)
    return AnswerLog(Path(folder), column_types(service.classes, service.finding), lost)
