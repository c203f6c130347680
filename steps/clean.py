"""Remove what is kept on disk between runs: stores of decoded images and features, or downloads and the sample too.

mlflow run . -e clean
mlflow run . -e clean -P what=all
"""

from steps.runtime.cli import Step
from steps.runtime.context import Context
from steps.runtime.runner import main

WHAT = ("stores", "all")
STEP = Step(
    name="clean",
    about="Remove stores (what=stores), or these and everything that was downloaded or drawn (what=all).",
    flags={"what": "stores | all; default: stores"},
)


def work(context: Context) -> None:
    from cxr.datasets import sources
    from cxr.errors import CxrError
    from cxr.loading.disk_cache import DiskCache, in_words

    what = context.flags.get("what", "stores")
    if what not in WHAT:
        raise CxrError(f"what={what}; allowed: {', '.join(WHAT)}")
    stores = DiskCache(context.settings.cache.dir, context.settings.cache.max_gb)
    for folder, size, _ in sorted(stores.listed()):
        context.log.info("removing %s (%s)", folder.name, in_words(size))
    freed = stores.clear()
    if what == "all":
        freed += sources.clear(context.settings.data)
    context.log.info("%s freed", in_words(freed))


if __name__ == "__main__":
    main(STEP, work)
