"""The summary that `main` prints: scores, links to the runs, and commands to continue with."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow

from cxr.report.formatting import SYNTHETIC
from cxr.settings.schema import DataSettings, Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

UI_PORT, SERVE_PORT = 5000, 5001


def metric_names(data: DataSettings) -> dict[str, str]:
    """Metrics of the test split in the summary, and how it calls them."""
    finding, negative = data.finding, data.class_names[0]
    return {
        "test_macro_f1": "macro-F1",
        "test_loss": "loss",
        "test_accuracy": "accuracy",
        f"test_auc_{finding}": f"AUC, {finding} against {negative}",
        "test_sensitivity": f"sensitivity for {finding}",
        "test_specificity": f"specificity for {finding}",
    }


def store_prefix() -> str:
    """What commands begin with: MLflow looks for its store in the current folder, and any other must be named."""
    uri = mlflow.get_tracking_uri()
    return "" if uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}" else f"MLFLOW_TRACKING_URI={uri} "


def summary(
    client: "MlflowClient",
    experiment_id: str,
    main_id: str,
    done: dict[str, str],
    settings: Settings,
    more_lines: list[str],
) -> str:
    """Text that `main` ends with.

    `done` maps each step to the ID of the run that holds its result; `more_lines` follow the scores.
    """
    uri = mlflow.get_tracking_uri()
    remote = uri.startswith("http")
    base = uri.rstrip("/") if remote else f"http://127.0.0.1:{UI_PORT}"
    evaluated = client.get_run(done["evaluate"])
    tags, metrics = evaluated.data.tags, evaluated.data.metrics
    lines = ["", "=" * 78]
    if client.get_run(done["prepare_split"]).data.tags.get("cxr.synthetic") == "true":
        lines += [SYNTHETIC, "-" * 78]
    if "val_metric" in metrics:
        lines.append(f"{'Metric on validation, at the best epoch':<34} {metrics['val_metric']:8.4f}")
    lines.append("Scores on the test split")
    names = metric_names(settings.data)
    lines += [f"  {text:<32} {metrics[name]:8.4f}" for name, text in names.items() if name in metrics]
    lines += [*more_lines, "Runs"]
    for name, run_id in {"main": main_id, **done}.items():
        lines.append(f"  {name:<14} {base}/#/experiments/{experiment_id}/runs/{run_id}")
    # With uv installed, the commands below create their own environment.
    manager = "uv" if shutil.which("uv") else "local"
    model = settings.registry.name
    if "cxr.model_version" in tags:
        lines.append(f"Model  {model} version {tags['cxr.model_version']}: {tags.get('cxr.gate', 'registered')}")
    lines.append("Next")
    store = store_prefix()
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
