"""Work of `train`: a new head on the frozen backbone."""

from cxr.models.build import build
from steps.runtime.context import Context
from steps.work.training import begin, load_manifest, train_and_log


def run(context: Context) -> None:
    """Train the head on the split of a prepare_split run."""
    settings = context.settings
    split = context.parent("split_run_id")
    state = begin(context, [split.data.tags["cxr.output_digest"]])
    manifest = load_manifest(context, split.info.run_id)
    context.log.info("%r", manifest)
    network = build(settings.model, manifest.classes, seed=settings.seed)
    train_and_log(context, network, manifest, settings.train, 0, state)
