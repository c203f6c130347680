"""Validate a registered model, as it is served, on any labelled set of X-rays.

Reads the registered model and `data_path`; writes `validation/` (report, predictions, figures), metrics of the run and
of the logged model, and a tag of the version. Nothing is chosen and nothing is registered: weights, temperature,
thresholds and referral are those of the version. Images of its own training are left out.

    mlflow run . -e validate -P data_path=FOLDER
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="validate",
    about="Validate a registered model, as it is served, on a labelled set of X-rays.",
    short={"data_path": "data.path", "engine": "data.engine"},
    flags={"model_uri": "models:/NAME@ALIAS or models:/NAME/VERSION; default: the champion"},
)


if __name__ == "__main__":
    main(STEP)
