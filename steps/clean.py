"""Remove what is cached on disk between runs.

`what=cache` removes the arrays of decoded images and features; `what=all` removes downloaded datasets and the
generated sample as well.

    mlflow run . -e clean
    mlflow run . -e clean -P what=all
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="clean",
    about="Remove cached arrays of decoded images and features, or downloads and the generated sample as well.",
    flags={"what": "cache | all; all includes downloads and the generated sample; default: cache"},
)


if __name__ == "__main__":
    main(STEP)
