"""Score a bundle on the test split and register it.

Reads the bundle of a finetune, train or ensemble run (or a folder) and its split; writes `evaluation/` (scores,
confusion matrix, predictions, figures) and a version of the registered model.

    mlflow run . -e evaluate -P run_id=RUN

On another split (`split_run_id`), a bundle is scored and not registered; the report says how many of the images it has
seen. A split without validation images needs `registry.register=false`.
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="evaluate",
    about="Score a bundle on its test split and register it.",
    parents={"run_id": ("finetune", "train", "ensemble"), "split_run_id": ("prepare_split",)},
    flags={
        "bundle": "folder with a bundle, instead of a run",
        "out": "folder to copy evaluation/ to",
    },
)


if __name__ == "__main__":
    main(STEP)
