"""Repeated training from several seeds: mean and spread of each score."""

from statistics import mean, stdev
from typing import TYPE_CHECKING

from cxr.errors import CxrError
from steps.work.summary import METRIC_NAMES

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST = 50


def count(text: str) -> int:
    """Number of seeds, as given on the command line."""
    if not text.isdigit() or not 1 <= int(text) <= MOST:
        raise CxrError(f"seeds: expected a whole number from 1 to {MOST}, got {text!r}")
    return int(text)


def scores(client: "MlflowClient", run_ids: list[str]) -> dict[str, list[float]]:
    """Values of each summarised metric over some evaluate runs, in the order of the runs."""
    runs = [client.get_run(run_id).data.metrics for run_id in run_ids]
    return {name: [metrics[name] for metrics in runs] for name in METRIC_NAMES if all(name in run for run in runs)}


def lines(scores: dict[str, list[float]], seeds: list[int]) -> list[str]:
    """Lines of the summary on mean and spread over seeds."""
    table = [f"Over {len(seeds)} seeds ({seeds[0]} to {seeds[-1]}): mean, standard deviation, minimum to maximum"]
    for name, values in scores.items():
        table.append(
            f"  {METRIC_NAMES[name]:<32} {mean(values):8.4f}  ± {stdev(values):.4f}  "
            f"{min(values):.4f} to {max(values):.4f}"
        )
    return table
