"""The work of `predict`: the model and the files it is given, the engine, and what the run keeps of it."""

import time
from pathlib import Path

from cxr.errors import CxrError
from cxr.serving import batch
from steps.registry.model_files import asked_for
from steps.runtime.context import Context

ENGINES = ("local", "spark")


def score(context: Context) -> None:
    """Score what the command line names, and count the rows by status."""
    for name in ("input", "output"):
        if name not in context.flags:
            raise CxrError(f"{name} is not given; write -P {name}=...")
    engine = context.flags.get("engine", "local")
    if engine not in ENGINES:
        raise CxrError(f"engine={engine}; allowed: {', '.join(ENGINES)}")
    paths = batch.listed(Path(context.flags["input"]).expanduser())
    output = Path(context.flags["output"]).expanduser()
    uri, service = asked_for(context)
    point = service.check_operating_point(context.flags.get("operating_point", ""))
    context.log.info("scoring %d files with %s, engine %s", len(paths), uri, engine)
    started = time.monotonic()
    if engine == "spark":
        from steps.work.spark import score_with_spark

        counts = score_with_spark(uri, service.classes, paths, output, point, service.limits.max_images)
    else:
        counts = batch.score(service, paths, output, {"point": point}, uri)
    context.metrics({f"rows_{status}": count for status, count in counts.items()} | {"rows": len(paths)})
    context.log.info(
        "%s: %s, in %.0f s", output, ", ".join(f"{n} {s}" for s, n in sorted(counts.items())),
        time.monotonic() - started,
    )  # fmt: skip
