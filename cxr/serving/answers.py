"""The log of answers of a service, for monitoring: `CXR_ANSWERS=FOLDER`, Parquet, one row for each image.

A row has the ID of the request and the number of the image in it, the time, the answer without its heatmap, distance,
brightness and size; no picture and nothing of a patient. Rows wait in memory and are written by a thread of their own,
each file whole, into a folder for each day (UTC) that only the user of the service can read:
`FOLDER/2026-11-28/081500-3f2a91c0-000001.parquet`. A process that is killed loses the rows of half a minute, `EVERY_S`,
at most. No request waits for the disk and none fails by it: rows that cannot be written are left out, which the log of
the service says once.
"""

import atexit
import logging
import os
import secrets
import threading
from datetime import UTC, datetime
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
FILE_ROWS = 2000  # rows from which a file is written earlier
MOST_ROWS = 100_000  # rows that wait at most, some 50 MB: more arrive only while the disk stands still
_PRIVATE, _PRIVATE_FILE = 0o700, 0o600

log = logging.getLogger("cxr.serving")


class AnswerLog:
    """Writes answers of one process. Thread-safe.

    Args:
        folder: made, readable by this user alone, if it is absent.
        columns: those of an answer, with MLflow's types (see `cxr.serving.service.column_types`).
        every_s: seconds after which waiting rows are written.
    """

    def __init__(self, folder: Path, columns: dict[str, str], every_s: float = EVERY_S):
        from cxr.serving.columns import arrow_schema  # pyarrow takes memory that other services save

        kept = {name: kind for name, kind in columns.items() if name != "heatmap"}
        self._schema = arrow_schema({"request_id": "string", "row": "integer"} | kept)
        self._folder, self._every_s, self._columns = folder, every_s, [*kept, *MEASURED]
        self._process, self._files = secrets.token_hex(4), 0  # processes of containers all have the same number
        self._waiting: list[pd.DataFrame] = []
        self._rows = 0  # of all that wait
        self._lock, self._wake, self._writing = threading.Lock(), threading.Event(), threading.Lock()
        self._closed, self._told = False, set[str]()  # what has been told of
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def add(self, answers: pd.DataFrame, request_id: str) -> None:
        """Keep the answers of a request, with the columns `MEASURED`, for the thread that writes; never raises."""
        try:
            table = answers[self._columns].assign(
                request_id=request_id, row=range(len(answers)), time=datetime.now(UTC)
            )
            with self._lock:
                room = self._rows + len(table) <= MOST_ROWS
                if room:
                    self._waiting.append(table)
                    self._rows += len(table)
                many = self._rows >= FILE_ROWS
            if not room:
                self._tell_once("loss", "more answers wait than can be written")
            if many:
                self._wake.set()
        except Exception as error:  # of the log, which must not become one of the request
            self._tell_of_error(error)

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
                self._tell_of_error(error)

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self._every_s)
            self._wake.clear()
            self.write()

    def _write(self, tables: list[pd.DataFrame]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        rows = pd.concat([table.astype(object) for table in tables], ignore_index=True)
        table = pa.Table.from_pandas(rows, self._schema, preserve_index=False)
        first: datetime = tables[0]["time"].iat[0]
        self._files += 1
        day = self._folder / f"{first:%Y-%m-%d}"
        make_folder(self._folder, _PRIVATE)
        make_folder(day, _PRIVATE)
        name = f"{first:%H%M%S}-{self._process}-{self._files:06d}.parquet"
        write_atomic(day / name, partial(parquet.write_table, table), mode=_PRIVATE_FILE)

    def _tell_of_error(self, error: Exception) -> None:
        self._tell_once("error", str(error) if isinstance(error, CxrError) else f"{type(error).__name__}: {error}")

    def _tell_once(self, kind: str, why: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            log.error("%s: answers are left out of the log of answers (%s); told once", VARIABLE, why)


def opened(service: "Service") -> AnswerLog | None:
    """The log that the environment asks for; None without `CXR_ANSWERS`."""
    folder = os.environ.get(VARIABLE, "").strip()
    if not folder:
        return None
    log.info("answers are kept in %s", folder)
    return AnswerLog(Path(folder), column_types(service.classes, service.finding))
