"""Score a folder, a list file, a DICOM tree or the images of an archive with a registered model.

Reads images and the registered model; writes one row per image to a Parquet file, in the order given. An interrupted
run continues with the images that were not scored yet. With `dicom_out`, each DICOM image gets a Structured Report and
a heatmap in that folder; with `dicomweb`, images come from a DICOMweb server, and their results go back there.

    mlflow run . -e predict -P input=FOLDER -P output=preds.parquet
    mlflow run . -e predict -P input=FOLDER -P output=preds.parquet -P dicom_out=RESULTS
    mlflow run . -e predict -P dicomweb=http://127.0.0.1:8042/dicom-web -P output=preds.parquet
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="predict",
    about="Score a folder, a list file, a DICOM tree or the images of an archive with a registered model.",
    short={"engine": "data.engine"},
    flags={
        "input": "folder of images, or a file with one path per line; or the URL of one (s3://...)",
        "output": "Parquet file to write, or its URL; with engine=spark, a folder of Parquet files",
        "model_uri": "models:/NAME@ALIAS or models:/NAME/VERSION; default: the champion",
        "operating_point": "argmax | youden | sensitive; default: the one the model was registered with",
        "dicom_out": "folder for a DICOM report and a heatmap of each DICOM image",
        "dicomweb": "address of a DICOMweb server that images come from and results go to, instead of input",
        "query": "what to search there, as {Modality: [DX, CR], StudyDate: 20261101-20261128}; default: CR and DX",
    },
)


if __name__ == "__main__":
    main(STEP)
