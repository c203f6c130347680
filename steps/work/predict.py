"""Work of `predict`: score many files with a registered model, locally or with Spark."""

import time
from collections.abc import Mapping
from pathlib import Path

from cxr.common import storage
from cxr.common.remote import Remote
from cxr.common.storage import Place
from cxr.errors import CxrError
from cxr.serving import batch, inputs
from cxr.serving.batch import FILES, Transfer
from cxr.serving.service import Service, column_types
from steps.registry.model_files import requested_service
from steps.runtime.context import Context
from steps.work.predict_spark import score_with_spark


def run(context: Context) -> None:
    """Score the images that the command line names, and count the rows by status."""
    flags = context.flags
    for name in ("output",) if "dicomweb" in flags else ("input", "output"):
        if name not in flags:
            raise CxrError(f"{name} is not given; add -P {name}=...")
    for name in ("input", "output"):
        storage.given(flags.get(name, ""), name)
    engine = context.settings.data.engine
    _check_archive(flags, engine)
    if "dicomweb" in flags or "dicom_out" in flags:
        from steps.work import predict_archive  # only now: it loads highdicom

        predict_archive.run(context)
        return
    paths = inputs.list_files(storage.given(flags["input"], "input"))
    uri, service = requested_service(context)
    point = service.check_operating_point(flags.get("operating_point", ""))
    if engine == "local":
        score(context, uri, service, paths, {"point": point}, uri)
        return
    context.log.info("scoring %d files with %s, engine %s", len(paths), uri, engine)
    started, output = time.monotonic(), _for_spark(paths, flags["output"])
    columns = column_types(service.classes, service.finding)
    counts = score_with_spark(uri, columns, paths, output, point, service.limits.max_images)
    _report(context, output, counts, len(paths), started)


def score(
    context: Context,
    uri: str,
    service: Service,
    paths: list[str],
    options: dict[str, object],
    identity: str,
    transfer: Transfer = FILES,
) -> None:
    """Score images in this process (see `batch.score`), and count the rows by status."""
    context.log.info("scoring %d files with %s, engine local", len(paths), uri)
    started, output = time.monotonic(), storage.given(context.flags["output"], "output")
    counts = batch.score(service, paths, output, options, identity, transfer)
    _report(context, output, counts, len(paths), started)


def _check_archive(flags: Mapping[str, str], engine: str) -> None:
    """Refuse combinations of the parameters that name an archive."""
    named = [name for name in ("dicom_out", "dicomweb") if name in flags]
    if named and engine == "spark":
        raise CxrError(f"{named[0]} goes with engine=local only, got engine=spark; leave one of them out")
    if len(named) > 1:
        raise CxrError("dicom_out and dicomweb are both given; results go to one of them")
    if "dicomweb" in flags and "input" in flags:
        raise CxrError("input and dicomweb are both given; images come from one of them")
    if "query" in flags and "dicomweb" not in flags:
        raise CxrError("query searches a DICOMweb server; add -P dicomweb=http://...")


def _for_spark(paths: list[str], output: str) -> Path:
    """The output of Spark, whose machines read and write files at paths that all of them see."""
    folder = storage.given(output, "output")
    remote = next((path for path in paths if isinstance(storage.place(path), Remote)), None)
    if remote is not None or isinstance(folder, Remote):
        raise CxrError(f"engine=spark reads and writes no URLs, got {remote or folder}; leave engine out")
    return folder


def _report(context: Context, output: Place, counts: dict[str, int], rows: int, started: float) -> None:
    context.metrics({f"rows_{status}": count for status, count in counts.items()} | {"rows": rows})
    by_status = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "no rows"
    context.log.info("%s: %s, in %.0f s", output, by_status, time.monotonic() - started)
