"""Train a new head on the frozen backbone.

Reads the manifest of a prepare_split run; writes `bundle/` (the best weights), `checkpoint/last.pt` (to resume from)
and the curves.

    mlflow run . -e train -P epochs=10 -P lr=1e-3
"""

from steps.runtime.cli import Step
from steps.runtime.context import Context
from steps.runtime.runner import main

STEP = Step(
    name="train",
    about="Train a new head on the frozen backbone of a split's images.",
    parents={"split_run_id": ("prepare_split",)},
    short={"epochs": "train.epochs", "lr": "train.optimizer.lr"},
    flags={"resume": "run ID of an interrupted training to go on with"},
    system_metrics=True,
)


def work(context: Context) -> None:
    from cxr.models.build import build  # here, not above: torch takes seconds to import, and --help needs none of it
    from steps.work.training import begin, manifest_of, train_and_keep

    settings = context.settings
    split = context.parent("split_run_id")
    state = begin(context, [split.data.tags["cxr.output_digest"]])
    manifest = manifest_of(context, split.info.run_id)
    context.log.info("%r", manifest)
    network = build(settings.model, manifest.classes, seed=settings.seed)
    train_and_keep(context, network, manifest, settings.train, 0, state)


if __name__ == "__main__":
    main(STEP, work)
