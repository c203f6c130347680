"""Score many files: one row for each, in the order given, in memory that does not grow with their number.

Rows are written in parts beside the output (`preds.parquet.parts/`), each part whole or absent. A run that was killed
goes on after its last part; at the end the parts become one Parquet file, which appears whole.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from tqdm import tqdm

from cxr.common.files import write_atomic
from cxr.errors import CxrError
from cxr.imaging import dicom
from cxr.imaging.decode import SUFFIXES
from cxr.serving.service import BATCH, Service, kinds

log = logging.getLogger("cxr.serving.batch")

PART_ROWS = 512
_PLAN = "plan.json"
_AHEAD = 2  # batches under way: one is decoded while another goes through the network
_LOG_EVERY_S = 15


def listed(source: Path) -> list[str]:
    """Paths of the files to score: all pictures below a folder, by name, or the lines of a list file, as they stand.

    Below a folder, DICOM files are known by their content where they have no suffix, as archives leave them. Paths in
    a list file are relative to its folder.
    """
    if source.is_dir():
        found = sorted(str(path) for path in _below(source))
        if not found:
            raise CxrError(f"input={source}: no pictures below it ({', '.join(SUFFIXES)}, or DICOM without a suffix)")
        return found
    if not source.is_file():
        raise CxrError(f"input={source} does not exist; give a folder, or a file with one path a line")
    if source.suffix.lower() in SUFFIXES:
        return [str(source)]
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CxrError(f"input={source}: no list of paths ({error}); one path a line, in UTF-8") from None
    found = [str(source.parent / line.strip()) for line in lines if line.strip()]
    if not found:
        raise CxrError(f"input={source}: an empty list; one path a line")
    return found


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__MACOSX" and not name.startswith("."))
        for name in names:
            path = Path(place, name)
            if name.startswith("."):
                continue
            suffix = path.suffix.lower()
            if suffix in SUFFIXES or ((not suffix or suffix[1:].isdigit()) and _is_dicom(path)):
                yield path


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return dicom.is_dicom(file.read(132))
    except OSError:
        return False


def score(service: Service, paths: list[str], output: Path, options: dict[str, Any], identity: str) -> dict[str, int]:
    """Write one row a path to `output`; returns the number of rows by status.

    `options` go to `Service.answer`. `identity` names the model: parts and output of another one, of other options or
    of another list are never mixed with these.
    """
    if output.suffix != ".parquet":
        raise CxrError(f"output={output}: a name that ends in .parquet is needed")
    plan = hashlib.sha256(json.dumps([identity, options, paths]).encode()).hexdigest()
    if output.exists():
        if _plan_of(output) != plan:
            raise CxrError(f"output={output} holds something else already; remove it, or give another name")
        log.info("%s is complete already", output)
        return _statuses(output)
    folder = output.with_name(output.name + ".parts")
    _claim(folder, plan)
    names = [f"part-{number:06d}.parquet" for number in range(-(-len(paths) // PART_ROWS))]
    missing = [number for number, name in enumerate(names) if not (folder / name).is_file()]
    if len(missing) < len(names):
        log.info("going on: %d of %d parts are there already", len(names) - len(missing), len(names))
    schema = _schema(service.classes)
    left = sum(len(paths[n * PART_ROWS : (n + 1) * PART_ROWS]) for n in missing)
    with _Progress(left) as progress:
        for number in missing:
            rows = _part(service, paths[number * PART_ROWS : (number + 1) * PART_ROWS], options, progress)
            table = pa.Table.from_pandas(rows, schema, preserve_index=False)
            write_atomic(folder / names[number], lambda file, table=table: parquet.write_table(table, file))
    _join([folder / name for name in names], output, schema.with_metadata({"cxr.plan": plan}))
    shutil.rmtree(folder)
    return _statuses(output)


def _part(service: Service, paths: list[str], options: dict[str, Any], progress: "_Progress") -> pd.DataFrame:
    size = min(BATCH, service.limits.max_images)
    waiting: deque[Future] = deque()
    tables = []

    def take() -> None:
        tables.append(waiting.popleft().result())
        progress.add(len(tables[-1]))

    with ThreadPoolExecutor(_AHEAD) as pool:
        for start in range(0, len(paths), size):
            waiting.append(pool.submit(_answers, service, paths[start : start + size], options))
            if len(waiting) > _AHEAD:
                take()
        while waiting:
            take()
    return pd.concat(tables, ignore_index=True)


def _answers(service: Service, paths: list[str], options: dict[str, Any]) -> pd.DataFrame:
    read = [_read(Path(path), service.limits.max_bytes) for path in paths]
    table = service.answer([data for data, _ in read], strict=False, **options).astype(object)
    for row, (_, error) in enumerate(read):
        if error:
            table.loc[row, "reasons"] = error
    table.insert(0, "path", paths)
    return table


def _read(path: Path, max_bytes: int) -> tuple[bytes | None, str]:
    """The bytes of a file, or why there are none."""
    try:
        with path.open("rb") as file:
            return file.read(max_bytes + 1), ""
    except (OSError, ValueError) as error:
        return None, getattr(error, "strerror", None) or str(error)


def _schema(classes: tuple[str, ...]) -> pa.Schema:
    arrow = {"double": pa.float64(), "string": pa.string()}
    return pa.schema({"path": pa.string(), **{name: arrow[kind] for name, kind in kinds(classes).items()}})


def _claim(folder: Path, plan: str) -> None:
    """Make the folder of parts, or make sure that those in it are ours."""
    file = folder / _PLAN
    if file.is_file():
        if file.read_text(encoding="utf-8") != plan:
            raise CxrError(f"{folder} holds parts of another prediction; remove it, or give another output")
        return
    write_atomic(file, plan.encode())


def _join(parts: list[Path], output: Path, schema: pa.Schema) -> None:
    def copy(file: Any) -> None:
        with parquet.ParquetWriter(file, schema) as writer:
            for part in parts:
                writer.write_table(parquet.read_table(part).replace_schema_metadata(schema.metadata))

    write_atomic(output, copy)


def _plan_of(output: Path) -> str:
    try:
        return (parquet.read_schema(output).metadata or {}).get(b"cxr.plan", b"").decode()
    except (pa.ArrowException, OSError):
        return ""


def _statuses(output: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for batch in parquet.ParquetFile(output).iter_batches(columns=["status"]):
        for value in batch.column(0).to_pylist():
            counts[value] = counts.get(value, 0) + 1
    return counts


class _Progress:
    """A bar for a person, a line now and then for a log."""

    def __init__(self, total: int):
        self.total, self.done, self.last = total, 0, time.monotonic()
        self.bar: Callable[..., Any] = tqdm(
            total=total, desc="scoring", unit="image", leave=False, disable=not sys.stderr.isatty()
        )

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
