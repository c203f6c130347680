"""Work of `finetune`: continue the training of a train run with the last blocks unfrozen."""

from cxr.models import bundle
from steps.runtime.context import Context
from steps.work.training import begin, load_manifest, train_and_log


def run(context: Context) -> None:
    """Fine-tune the bundle of a train run on its split."""
    train_run = context.parent("train_run_id")
    manifest = load_manifest(context, train_run.data.tags["cxr.split_run_id"])
    state = begin(context, [train_run.data.tags["cxr.output_digest"], manifest.digest])
    trained = bundle.load(context.fetch(train_run.info.run_id, "bundle"))
    bundle.check_classes(trained, manifest.classes, manifest.finding)
    context.log.info("%r", manifest)
    settings = context.settings.finetune
    train_and_log(context, trained.network, manifest, settings, settings.unfreeze, state)
