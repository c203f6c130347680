"""A manifest as the dataset input of a run, which MLflow shows beside its metrics."""

import warnings

import mlflow
from mlflow.data.pandas_dataset import PandasDataset, from_pandas
from mlflow.exceptions import MlflowException

from cxr.datasets.manifest import Manifest
from steps.runtime import outage, process

_ATTEMPTS = 3  # on sqlite, one of two processes that log the same new dataset at the same moment fails


def log(manifest: Manifest, purpose: str, name: str = "manifest") -> PandasDataset:
    """Log the manifest as dataset input of the run; its digest covers every row (MLflow keeps 36 characters)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints on integer columns, meant for model signatures
        digest = manifest.digest[:36]
        dataset = from_pandas(manifest.rows, source=str(manifest.root), name=name, digest=digest, targets="label")
        for attempt in range(_ATTEMPTS):
            try:
                with process.unbroken():
                    mlflow.log_input(dataset, context=purpose)
                break
            except MlflowException as error:
                if attempt + 1 == _ATTEMPTS or outage.given_up(error):
                    raise
    return dataset
