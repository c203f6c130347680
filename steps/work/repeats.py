"""Repeated training, from several seeds or on several folds: mean and spread of each score."""

from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import TYPE_CHECKING

from cxr.errors import CxrError
from cxr.settings.schema import Settings
from steps.work.summary import metric_names

if TYPE_CHECKING:
    from mlflow import MlflowClient

MOST = 50


@dataclass(frozen=True)
class Repeats:
    """Trainings that differ in one setting.

    Attributes:
        metrics: the metrics to summarise, and how the summary calls them.
        over: what they differ in, for the summary.
        overrides: for each training, the settings of each step that it changes; steps before the first of these steps
            are those of the first training.
    """

    metrics: dict[str, str]
    over: str = ""
    overrides: list[dict[str, dict[str, str]]] = field(default_factory=lambda: [{}])

    def __len__(self) -> int:
        return len(self.overrides)


def plan(settings: Settings, seeds: str, given: dict[str, str]) -> Repeats:
    """The trainings of a driver with these settings, the parameter `seeds`, and the settings `given` to it."""
    if not seeds.isdigit() or not 1 <= int(seeds) <= MOST:
        raise CxrError(f"seeds: expected a whole number from 1 to {MOST}, got {seeds!r}")
    first, count, folds = settings.seed, int(seeds), settings.data.folds
    names = {"val_metric": "validation metric"} | metric_names(settings.data)
    if folds is None:
        further = [
            {name: {"seed": str(seed)} for name in ("train", "finetune")} for seed in range(first, first + count)
        ]
        return Repeats(names, f"{count} seeds ({first} to {first + count - 1})", [{}, *further[1:]])
    if count > 1:
        raise CxrError(f"seeds={count} and folds={folds} are both given; give one of them")
    if "data.fold" in given:
        raise CxrError(f"data.fold={given['data.fold']}: with folds, main runs every fold in turn; leave data.fold out")
    overrides = [{"prepare_split": {"data.fold": str(fold)}} for fold in range(folds)]
    # What a fold says on its own validation images; with seeds, all trainings share them.
    scored = ("macro_f1", "accuracy", f"auc_{settings.data.finding}", "sensitivity", "specificity")
    on_validation = {f"val_{score}": f"validation, {names[f'test_{score}']}" for score in scored}
    return Repeats(on_validation | names, f"{folds} folds", overrides)


def scores(client: "MlflowClient", run_ids: list[str], names: dict[str, str]) -> dict[str, list[float]]:
    """Values of each metric of `names` over some evaluate runs, in the order of the runs."""
    runs = [client.get_run(run_id).data.metrics for run_id in run_ids]
    return {name: [metrics[name] for metrics in runs] for name in names if all(name in run for run in runs)}


def lines(scores: dict[str, list[float]], repeats: Repeats) -> list[str]:
    """Lines of the summary on mean and spread over the trainings."""
    width = max(32, *map(len, repeats.metrics.values()))
    table = [f"Over {repeats.over}: mean, standard deviation, minimum to maximum"]
    for name, values in scores.items():
        table.append(
            f"  {repeats.metrics[name]:<{width}} {mean(values):8.4f}  ± {stdev(values):.4f}  "
            f"{min(values):.4f} to {max(values):.4f}"
        )
    return table
