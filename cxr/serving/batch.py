"""Batch scoring of many files: one row for each, in the order given, in constant memory.

A row has the path, the answer, and what is needed to watch a version in use (`cxr.monitoring`): `MEASURED`, and when it
was scored.

Rows are written in shards beside the output (`preds.parquet.shards/`), each of them whole or absent. A killed run
resumes after its last shard; at the end the shards are joined into one Parquet file, which appears whole. Neither
shards nor output count for the same paths once a file there has another size, time of change or version.
"""

import hashlib
import json
import logging
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from tqdm import tqdm

from cxr.common import storage
from cxr.common.files import sync_folder
from cxr.common.remote import Remote
from cxr.common.storage import Place
from cxr.errors import CxrError
from cxr.serving.columns import TIME, arrow_schema
from cxr.serving.inputs import identities, read_file
from cxr.serving.service import BATCH, Service, column_types

log = logging.getLogger(__name__)

SHARD_ROWS = 512
SHARD = "shard-"  # beginning of their names
_PLAN = "plan.json"
_AHEAD = 2  # batches in flight: one is decoded while another goes through the network
_LOG_EVERY_S = 15


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Where images come from, and where their results go beside the table.

    Attributes:
        read: gives the bytes of a path, at most so many, or why it cannot be read. Called in several threads.
        deliver: takes the images of some rows and these rows, with heatmaps if they were asked for, before the rows are
            kept without heatmaps. It may get rows again that an interrupted run has delivered but not kept.
        at_once: images that are read and answered together, and held in memory.
        listed: stands for the list of paths in the plan, and for their content, which never changes; empty: the paths
            themselves do, and the files there as they are now.
    """

    read: Callable[[str, int], tuple[bytes | None, str]] = read_file
    deliver: Callable[[list[bytes | None], pd.DataFrame], None] | None = None
    at_once: int = BATCH
    listed: str = ""


FILES = Transfer()


def score(
    service: Service,
    paths: list[str],
    output: Place,
    options: dict[str, Any],
    identity: str,
    transfer: Transfer = FILES,
) -> dict[str, int]:
    """Write one row per path to `output`; returns the number of rows by status.

    `options` are passed to `Service.answer`. `identity` names the model: shards and output of another model, of other
    options, of another list or of files that have changed since are never mixed with these.
    """
    check_output(output)
    schema = arrow_schema({"path": "string"} | column_types(service.classes, service.finding))
    listed = transfer.listed or [paths, identities(paths)]
    plan = hashlib.sha256(json.dumps([identity, options, listed, schema.names]).encode()).hexdigest()
    folder = shard_folder(output)
    if output.exists():
        if _plan_of(output) != plan:
            raise CxrError(
                f"output={output} already holds other results (of another model, point or list, or of files that have "
                "changed since); remove it, or give another name"
            )
        log.info("%s is already complete", output)
        if (folder / _PLAN).is_file() and (folder / _PLAN).read_text(encoding="utf-8") == plan:
            _remove_shards(folder)  # the machine stopped before they were all gone
        return _statuses(output)
    _claim(folder, plan)
    names = [f"{SHARD}{number:06d}.parquet" for number in range(-(-len(paths) // SHARD_ROWS))]
    there = storage.names(folder)
    missing = [number for number, name in enumerate(names) if name not in there]
    if len(missing) < len(names):
        log.info("resuming: %d of %d shards are already there", len(names) - len(missing), len(names))
    left = sum(len(paths[n * SHARD_ROWS : (n + 1) * SHARD_ROWS]) for n in missing)
    with _Progress(left) as progress:
        for number in missing:
            part = paths[number * SHARD_ROWS : (number + 1) * SHARD_ROWS]
            rows = _shard(service, part, options, transfer, progress)
            table = pa.Table.from_pandas(rows, schema, preserve_index=False)
            storage.write(folder / names[number], partial(parquet.write_table, table))
    _join([folder / name for name in names], output, schema.with_metadata({"cxr.plan": plan}))
    _remove_shards(folder)
    return _statuses(output)


def check_output(output: Place) -> None:
    """Raise `CxrError` for the name of a file that `score` does not write."""
    if output.suffix != ".parquet":
        raise CxrError(f"output={output}: expected a name that ends in .parquet")


def shard_folder(output: Place) -> Place:
    """The folder of unfinished work on `output`."""
    return output.with_name(output.name + ".shards")


def _shard(
    service: Service, paths: list[str], options: dict[str, Any], transfer: Transfer, progress: "_Progress"
) -> pd.DataFrame:
    size = min(transfer.at_once, service.limits.max_images)
    waiting: deque[Future] = deque()
    tables = []

    def take() -> None:
        tables.append(waiting.popleft().result())
        progress.add(len(tables[-1]))

    with ThreadPoolExecutor(_AHEAD) as pool:
        for start in range(0, len(paths), size):
            waiting.append(pool.submit(_answers, service, paths[start : start + size], options, transfer))
            if len(waiting) > _AHEAD:
                take()
        while waiting:
            take()
    return pd.concat(tables, ignore_index=True)


def _answers(service: Service, paths: list[str], options: dict[str, Any], transfer: Transfer) -> pd.DataFrame:
    read = [transfer.read(path, service.limits.max_bytes) for path in paths]
    images = [data for data, _ in read]
    table = service.answer(images, strict=False, measured=True, **options).astype(object)
    for row, (_, error) in enumerate(read):
        if error:
            table.loc[row, "reasons"] = error
    table.insert(0, "path", paths)
    if transfer.deliver:
        transfer.deliver(images, table)
        table["heatmap"] = None
    return table.assign(**{TIME: datetime.now(UTC)})


def _claim(folder: Place, plan: str) -> None:
    """Make the folder of shards, or make sure that those in it are ours."""
    file = folder / _PLAN
    if file.is_file():
        if file.read_text(encoding="utf-8") != plan:
            raise CxrError(
                f"{folder} holds shards of another prediction (of another model, point or list, or of files that have "
                "changed since); remove it, or give another output"
            )
        return
    storage.write(file, plan.encode())


def _remove_shards(folder: Place) -> None:
    """Remove the folder of shards, the plan last: shards without a plan would pass for those of the next prediction."""
    shards = {name for name in storage.names(folder) if name.startswith(SHARD)}
    if isinstance(folder, Remote):
        folder.remove(shards)
        folder.remove(folder.names())
        return
    for name in shards:
        (folder / name).unlink()
    sync_folder(folder)
    shutil.rmtree(folder)


def _join(shards: list[Place], output: Place, schema: pa.Schema) -> None:
    def copy(file: Any) -> None:
        with parquet.ParquetWriter(file, schema) as writer:
            for shard in shards:
                with shard.open("rb") as opened:
                    table = parquet.read_table(opened)
                writer.write_table(table.replace_schema_metadata(schema.metadata))

    storage.write(output, copy)


def _plan_of(output: Place) -> str:
    try:
        with output.open("rb") as opened:
            metadata = parquet.read_schema(opened).metadata
        return (metadata or {}).get(b"cxr.plan", b"").decode()
    except (pa.ArrowException, OSError):
        return ""


def _statuses(output: Place) -> dict[str, int]:
    counts: dict[str, int] = {}
    with output.open("rb") as opened:
        for batch in parquet.ParquetFile(opened).iter_batches(columns=["status"]):
            for value in batch.column(0).to_pylist():
                counts[value] = counts.get(value, 0) + 1
    return counts


class _Progress:
    """A progress bar on a terminal, and a line in the log now and then."""

    def __init__(self, total: int):
        self.total, self.done, self.last = total, 0, time.monotonic()
        self.bar = tqdm(total=total, desc="scoring", unit="image", leave=False, disable=not sys.stderr.isatty())

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, count: int) -> None:
        self.done += count
        self.bar.update(count)
        if time.monotonic() - self.last > _LOG_EVERY_S:
            log.info("scored %d of %d images", self.done, self.total)
            self.last = time.monotonic()
