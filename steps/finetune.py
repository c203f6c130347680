"""Train the last blocks of a bundle on, from where its train run ended.

Reads the bundle, the settings and the split of a train run; writes `bundle/`, `checkpoint/last.pt` and the curves.

    mlflow run . -e finetune -P lr=1e-5
"""

from steps.runtime.cli import Step
from steps.runtime.context import Context
from steps.runtime.runner import main

STEP = Step(
    name="finetune",
    about="Unfreeze the last blocks of a train run's bundle and train them on.",
    parents={"train_run_id": ("train",)},
    short={"epochs": "finetune.epochs", "lr": "finetune.optimizer.lr"},
    flags={"resume": "run ID of an interrupted training to go on with"},
    system_metrics=True,
)


def work(context: Context) -> None:
    from cxr.models import bundle  # here, not above: torch takes seconds to import, and --help needs none of it
    from steps.work.training import begin, manifest_of, train_and_keep

    train = context.parent("train_run_id")
    state = begin(context, [train.data.tags["cxr.output_digest"]])
    start = bundle.load(context.fetch(train.info.run_id, "bundle"))
    manifest = manifest_of(context, train.data.tags["cxr.split_run_id"])
    bundle.check_classes(start, manifest.classes)
    context.log.info("%r", manifest)
    settings = context.settings.finetune
    train_and_keep(context, start.network, manifest, settings, settings.unfreeze, state)


if __name__ == "__main__":
    main(STEP, work)
