"""Combine several bundles of one split into an ensemble that averages their calibrated probabilities.

Reads the bundles of finetune or train runs; writes `bundle/`, calibrated on validation, which `evaluate` scores and
registers like any other.

    mlflow run . -e ensemble -P run_ids=RUN,RUN,RUN
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="ensemble",
    about="Average the probabilities of several bundles of one split.",
    flags={"run_ids": "IDs of finetune or train runs, separated by commas"},
)


if __name__ == "__main__":
    main(STEP)
