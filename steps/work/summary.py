"""The closing words of the driver: where the runs are, what they scored, what to type next."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow

from cxr.settings.schema import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

SHOWN = {
    "val_metric": "validation metric",
    "test_macro_f1": "macro-F1",
    "test_loss": "loss",
    "test_accuracy": "accuracy",
    "test_auc_pneumonia": "AUC, pneumonia against normal",
    "test_sensitivity": "sensitivity for pneumonia",
    "test_specificity": "specificity for pneumonia",
}
UI_PORT, SERVE_PORT = 5000, 5001


def summary(
    client: "MlflowClient", experiment_id: str, main_id: str, done: dict[str, str], settings: Settings, more: list[str]
) -> str:
    """The text that `main` ends with; `done` maps each step to the ID of the run that holds its result."""
    uri = mlflow.get_tracking_uri()
    remote = uri.startswith("http")
    base = uri.rstrip("/") if remote else f"http://127.0.0.1:{UI_PORT}"
    evaluated = client.get_run(done["evaluate"])
    tags, metrics = evaluated.data.tags, evaluated.data.metrics
    lines = ["", "=" * 78]
    if client.get_run(done["prepare_split"]).data.tags.get("cxr.synthetic") == "true":
        lines += ["SYNTHETIC DATA: drawn phantoms, no patients. These scores say nothing about X-rays.", "-" * 78]
    lines.append("Scores on the test part")
    lines += [f"  {text:<32} {metrics[name]:8.4f}" for name, text in SHOWN.items() if name in metrics]
    lines += [*more, "Runs"]
    for name, run_id in {"main": main_id, **done}.items():
        lines.append(f"  {name:<14} {base}/#/experiments/{experiment_id}/runs/{run_id}")
    # Who has uv needs no environment of their own for what comes next.
    manager = "uv" if shutil.which("uv") else "local"
    model = settings.registry.name
    if "cxr.model_version" in tags:
        lines.append(f"Model  {model} version {tags['cxr.model_version']}: {tags.get('cxr.gate', 'registered')}")
    lines.append("Next")
    # MLflow looks for its store in the current folder; another one must be named wherever it is asked for.
    store = "" if uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}" else f"MLFLOW_TRACKING_URI={uri} "
    if not remote:
        lines.append(f"  see the runs   mlflow ui --backend-store-uri {uri} --port {UI_PORT}")
    if settings.registry.register_model:
        served = f"models:/{model}@champion"
        lines.append(
            f"  serve it       {store}mlflow models serve -m '{served}' --env-manager {manager} --port {SERVE_PORT}"
        )
        lines.append(f"  try it         {store}mlflow run . -e demo --env-manager {manager}")
    lines.append(f"  tune it        {store}mlflow run . -e finetune -P lr=1e-5 --env-manager {manager}")
    if settings.data.path == "sample":
        lines.append(
            f"  real X-rays    {store}mlflow run . -e main -P data_path=FOLDER -P profile=cpu --env-manager {manager}"
        )
    return "\n".join([*lines, "=" * 78])
