"""Train a new head on the frozen backbone.

Reads the manifest of a prepare_split run; writes `bundle/` (the best weights), `checkpoint/last.pt` (to resume from)
and the curves.

    mlflow run . -e train -P epochs=10 -P lr=1e-3
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="train",
    about="Train a new head on the frozen backbone.",
    parents={"split_run_id": ("prepare_split",)},
    short={"epochs": "train.epochs", "lr": "train.optimizer.lr"},
    flags={"resume": "ID of an interrupted run to resume"},
    system_metrics=True,
    parallel=True,
)


if __name__ == "__main__":
    main(STEP)
