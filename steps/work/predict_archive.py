"""`predict` with results in an archive: DICOM files in a folder, or on a DICOMweb server that the images came from."""

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from cxr.archive.delivery import FAILED, FOREIGN, HEATMAPS, PRESENT, REPORTS, UNREAD, Delivery, Folder
from cxr.archive.dicomweb import Server, parts_of
from cxr.archive.identity import Model, ResultUIDs
from cxr.archive.query import read_query
from cxr.archive.source import HeaderError, Source
from cxr.archive.worklist import Worklist, kept
from cxr.common import storage
from cxr.common.files import sha256_of_text
from cxr.common.storage import Place
from cxr.errors import CxrError
from cxr.imaging.dicom import is_dicom
from cxr.serving.batch import SHARD, Transfer, check_output, shard_folder
from cxr.serving.inputs import is_dicom_file, list_files, read_file
from cxr.serving.service import ERROR, Service
from steps.registry.model_files import requested_service
from steps.runtime.context import Context
from steps.work import predict

_AT_ONCE = 8  # images in memory for each part of the work; radiographs of an archive may have 20 MB each
_REASONS = 5  # that a log line names


def run(context: Context) -> None:
    """Score the images that the command line names, and put a report and a heatmap for each into the archive."""
    if "dicomweb" in context.flags:
        _on_server(context)
    else:
        _in_folder(context)


def _in_folder(context: Context) -> None:
    source = storage.given(context.flags["input"], "input")
    folder = storage.local(context.flags["dicom_out"], "dicom_out")
    if isinstance(source, Path) and source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise CxrError(f"dicom_out={folder} is within input={source}, so that results would become input; move it out")
    paths = list_files(source)
    if not any(is_dicom_file(storage.place(path)) for path in paths):
        raise CxrError(
            f"input={source}: none of its {len(paths)} files is DICOM, and only these have a study for results; leave "
            "dicom_out out"
        )
    uri, service, model, options = _prepared(context)
    archive = Folder(folder)
    delivery = Delivery(model, archive)
    context.log.info("%s will hold names of patients; only its owner can read what is written", folder)
    transfer = Transfer(deliver=delivery)
    predict.score(context, uri, service, paths, options, f"{uri} to {folder.resolve()}", transfer)
    _report(context, delivery, str(folder))
    if not delivery.counts and archive.is_empty() and _has_reported(context, service, paths):
        raise CxrError(
            f"dicom_out={folder} holds no reports, but {context.flags['output']} is complete from an earlier run; to "
            "make them again, give another output"
        )


def _on_server(context: Context) -> None:
    output = storage.given(context.flags["output"], "output")
    check_output(output)
    server = Server(context.flags["dicomweb"])
    query = read_query(context.flags.get("query", ""))
    uri, service, model, options = _prepared(context)
    point = str(options["point"])
    request = sha256_of_text(f"{server.url} {query} {uri} {point}")  # a query may hold the ID of a patient

    def has_results(path: str) -> bool:
        study, _, instance = parts_of(path)
        return server.has(ResultUIDs.of(study, instance, model, point))

    worklist = _worklist(context.log, server, query, request, output, has_results)
    delivery = Delivery(model, server)
    transfer = Transfer(read=server.read, deliver=delivery, at_once=_AT_ONCE, listed=worklist.listed)
    predict.score(context, uri, service, worklist.todo, options, uri, transfer)
    unread = _unread(output)
    expected = [path for path in worklist.todo if path not in unread]
    missing = [path for path in expected if not has_results(path)]
    if missing and not delivery.counts[FAILED]:  # all of them were refused in earlier runs, whose rows are kept
        context.log.info("%d images scored by an earlier run have no results yet; answering them again", len(missing))
        _deliver_again(service, server, delivery, missing, options)
        missing = [path for path in missing if not has_results(path)]
    _report(context, delivery, server.url)
    if missing:
        raise CxrError(
            f"{server.url}: {len(missing)} images have no results there, as logged above; to try these again, and no "
            "others, run this again"
        )


def _has_reported(context: Context, service: Service, paths: list[str]) -> bool:
    """Whether the table answers an image that results can refer to, so that a report of it was written."""
    unread = _unread(storage.given(context.flags["output"], "output"))
    for path in paths:
        data, _ = (None, "") if path in unread else read_file(path, service.limits.max_bytes)
        if data is None or not is_dicom(data):
            continue
        try:
            Source.of(data)
        except HeaderError:
            continue
        return True
    return False


def _unread(output: Place) -> set[str]:
    """Paths of the images in the table that got no answer, and so no results."""
    with output.open("rb") as opened:
        rows = pd.read_parquet(opened, columns=["path", "status"])
    return set(rows["path"][rows["status"] == ERROR])


def _deliver_again(
    service: Service, server: Server, delivery: Delivery, paths: list[str], options: dict[str, object]
) -> None:
    """Answer images whose rows are kept once more, as the table has no heatmaps, and deliver their results."""
    size = min(_AT_ONCE, service.limits.max_images)
    for start in range(0, len(paths), size):
        read = [server.read(path, service.limits.max_bytes) for path in paths[start : start + size]]
        images = [data for data, _ in read]
        answers = service.answer(images, strict=False, **options).astype(object)
        delivery(images, answers)
        for (_, error), status, reasons in zip(read, answers["status"], answers["reasons"], strict=True):
            if status == ERROR:
                delivery.reasons[error or reasons] += 1


def _prepared(context: Context) -> tuple[str, Service, Model, dict[str, object]]:
    """URI of the model, its service, who it is in its results, and the options of its answers."""
    uri, service = requested_service(context)
    point = service.check_operating_point(context.flags.get("operating_point", ""))
    name = uri.removeprefix("models:/").rpartition("/")[0]
    return uri, service, Model.of(service, name), {"point": point, "with_heatmap": True}


def _worklist(
    log: logging.Logger,
    server: Server,
    query: dict[str, list[str]],
    request: str,
    output: Place,
    has_results: Callable[[str], bool],
) -> Worklist:
    """The instances to answer: those of an interrupted run on `output`, or those that match and have no results."""
    folder = shard_folder(output)
    if worklist := kept(folder, request):
        log.info("resuming with the %d images that an interrupted run has found", len(worklist.todo))
        return worklist
    paths = server.instances(query)
    if not paths:
        log.warning("%s: no image matches the query", server.url)
    worklist = Worklist.of(request, paths, has_results)
    done = worklist.found - len(worklist.todo)
    log.info("%s: %d images match, %d of them have results of this model", server.url, worklist.found, done)
    if not output.exists() and not any(name.startswith(SHARD) for name in storage.names(folder)):
        worklist.keep(folder)
    return worklist


def _report(context: Context, delivery: Delivery, where: str) -> None:
    """Count what became of the images that were scored in this run."""
    counts = delivery.counts
    if not counts:
        context.log.info("%s: nothing was scored in this run, so nothing is new there", where)
    words = (REPORTS, HEATMAPS, PRESENT, UNREAD, FOREIGN, FAILED)
    context.metrics({f"dicom_{word.replace(' ', '_')}": counts[word] for word in words})
    context.log.info("%s: %s", where, ", ".join(f"{counts[word]} {word}" for word in words))
    for reason, count in delivery.reasons.most_common(_REASONS):
        context.log.warning("%d images have no results in the archive: %s", count, reason)
