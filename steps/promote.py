"""Make a version of the registered model champion by hand, or restore the previous champion.

Reads the registry; moves the alias `champion`, and records the reason in the model's history and in the run.

    mlflow run . -e promote -P version=3 -P reason="checked by hand"
    mlflow run . -e promote -P version=previous
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="promote",
    about="Move the alias champion to a version by hand.",
    flags={
        "version": "version number, or `previous` for the champion before the current one",
        "reason": "free text, recorded with the run and the model",
    },
)


if __name__ == "__main__":
    main(STEP)
