"""Work of `predict`: score many files with a registered model, locally or with Spark."""

import time
from pathlib import Path

from cxr.errors import CxrError
from cxr.serving import batch
from cxr.serving.service import column_types
from steps.registry.model_files import requested_service
from steps.runtime.context import Context
from steps.work.predict_spark import score_with_spark

ENGINES = ("local", "spark")


def run(context: Context) -> None:
    """Score the files that the command line names, and count the rows by status."""
    for name in ("input", "output"):
        if name not in context.flags:
            raise CxrError(f"{name} is not given; add -P {name}=...")
    engine = context.flags.get("engine", "local")
    if engine not in ENGINES:
        raise CxrError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    paths = batch.list_files(Path(context.flags["input"]).expanduser())
    output = Path(context.flags["output"]).expanduser()
    uri, service = requested_service(context)
    point = service.check_operating_point(context.flags.get("operating_point", ""))
    context.log.info("scoring %d files with %s, engine %s", len(paths), uri, engine)
    started = time.monotonic()
    if engine == "spark":
        columns = column_types(service.classes, service.finding)
        counts = score_with_spark(uri, columns, paths, output, point, service.limits.max_images)
    else:
        counts = batch.score(service, paths, output, {"point": point}, uri)
    context.metrics({f"rows_{status}": count for status, count in counts.items()} | {"rows": len(paths)})
    by_status = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    context.log.info("%s: %s, in %.0f s", output, by_status, time.monotonic() - started)
