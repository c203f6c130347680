"""How much of a score is luck: the same training from several seeds, its mean and its spread."""

from statistics import mean, stdev
from typing import TYPE_CHECKING

from cxr.errors import CxrError

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST = 50
SHOWN = {
    "val_metric": "validation metric",
    "test_macro_f1": "macro-F1",
    "test_loss": "loss",
    "test_accuracy": "accuracy",
    "test_auc_pneumonia": "AUC, pneumonia",
    "test_sensitivity": "sensitivity",
    "test_specificity": "specificity",
}


def count(wish: str) -> int:
    """The number of seeds that the command line asks for."""
    if not wish.isdigit() or not 1 <= int(wish) <= MOST:
        raise CxrError(f"seeds={wish}; allowed: a whole number from 1 to {MOST}")
    return int(wish)


def spread(client: "MlflowClient", evaluated: list[str]) -> dict[str, list[float]]:
    """Each shown metric of the evaluate runs, in their order."""
    metrics = [client.get_run(run_id).data.metrics for run_id in evaluated]
    return {name: [own[name] for own in metrics] for name in SHOWN if all(name in own for own in metrics)}


def lines(found: dict[str, list[float]], seeds: list[int]) -> list[str]:
    """The part of the summary about them."""
    said = [f"Over {len(seeds)} seeds ({seeds[0]} to {seeds[-1]}): mean, standard deviation, smallest to largest"]
    for name, values in found.items():
        said.append(
            f"  {SHOWN[name]:<32} {mean(values):8.4f}  ± {stdev(values):.4f}  {min(values):.4f} to {max(values):.4f}"
        )
    return said
