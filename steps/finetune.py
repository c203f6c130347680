"""Unfreeze the last blocks of a trained bundle and continue training.

Reads the bundle, the settings and the split of a train run; writes `bundle/`, `checkpoint/last.pt` and the curves.

    mlflow run . -e finetune -P lr=1e-5
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="finetune",
    about="Unfreeze the last blocks of a train run's bundle and continue training.",
    parents={"train_run_id": ("train",)},
    short={"epochs": "finetune.epochs", "lr": "finetune.optimizer.lr"},
    flags={"resume": "ID of an interrupted run to resume"},
    system_metrics=True,
    parallel=True,
)


if __name__ == "__main__":
    main(STEP)
