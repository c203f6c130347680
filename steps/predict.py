"""Score a folder, a list file or a DICOM tree with a registered model.

Reads pictures and the registered model; writes one row for each to a Parquet file, in the order given. What was
scored before a kill is not scored again.

    mlflow run . -e predict -P input=FOLDER -P output=preds.parquet
"""

from steps.runtime.cli import Step
from steps.runtime.context import Context
from steps.runtime.runner import main

STEP = Step(
    name="predict",
    about="Score a folder, a list file or a DICOM tree with a registered model.",
    flags={
        "input": "folder with pictures, or a file with one path a line",
        "output": "Parquet file to write; with engine=spark, a folder of them",
        "model_uri": "models:/NAME@ALIAS or models:/NAME/VERSION; default: the champion",
        "operating_point": "argmax | youden | sensitive; default: the one the model was registered with",
        "engine": "local | spark; default: local",
    },
)


def work(context: Context) -> None:
    from steps.work.predict import score  # here, not above: --help needs none of it

    score(context)


if __name__ == "__main__":
    main(STEP, work)
