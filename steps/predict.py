"""Score a folder, a list file or a DICOM tree with a registered model.

Reads images and the registered model; writes one row per image to a Parquet file, in the order given. An interrupted
run continues with the images that were not scored yet.

    mlflow run . -e predict -P input=FOLDER -P output=preds.parquet
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="predict",
    about="Score a folder, a list file or a DICOM tree with a registered model.",
    flags={
        "input": "folder of images, or a file with one path per line",
        "output": "Parquet file to write; with engine=spark, a folder of Parquet files",
        "model_uri": "models:/NAME@ALIAS or models:/NAME/VERSION; default: the champion",
        "operating_point": "argmax | youden | sensitive; default: the one the model was registered with",
        "engine": "local | spark; default: local",
    },
)


if __name__ == "__main__":
    main(STEP)
