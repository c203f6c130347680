"""Work of `clean`: remove cached arrays, and on request downloads and the generated sample."""

from cxr.datasets import sources
from cxr.errors import CxrError
from cxr.loading.disk_cache import DiskCache, human_size
from steps.runtime.context import Context

WHAT = ("cache", "all")


def run(context: Context) -> None:
    """Remove what `what` names, and log how much space that freed."""
    what = context.flags.get("what", "cache")
    if what not in WHAT:
        raise CxrError(f"what: expected one of {', '.join(WHAT)}, got {what!r}")
    cache = DiskCache(context.settings.cache.dir, context.settings.cache.max_gb)
    for folder, size, _ in sorted(cache.listed()):
        context.log.info("removing %s (%s)", folder.name, human_size(size))
    freed = cache.clear()
    if what == "all":
        freed += sources.clear(context.settings.data)
    context.log.info("%s freed", human_size(freed))
