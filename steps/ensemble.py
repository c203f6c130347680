"""Combine several bundles of one split, or of all folds, into an ensemble that averages their calibrated probabilities.

Reads the bundles of finetune or train runs; writes `bundle/`, calibrated on validation, which `evaluate` scores and
registers like any other. For folds, validation is out of fold: each image is answered by the member that was not
trained on it, and these answers are kept as `bundle/out_of_fold.csv`.

    mlflow run . -e ensemble -P run_ids=RUN,RUN,RUN
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="ensemble",
    about="Average the probabilities of several bundles of one split, or of all folds.",
    flags={"run_ids": "IDs of finetune or train runs, separated by commas"},
)


if __name__ == "__main__":
    main(STEP)
