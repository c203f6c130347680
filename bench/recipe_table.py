"""The table of `bench.recipe`: what the answers of every variant score, and what that differs from another one."""

import math
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.common import machine
from cxr.evaluation import bootstrap, scores
from cxr.evaluation.calibration import fit_temperature
from cxr.evaluation.scores import Sample
from cxr.serving.probabilities import softmax

EXPLAINED = """Scores on validation, means over folds of a cross-validation, each with the other four for training;
`python -m bench.recipe`. The loss is that of calibrated answers, with the temperature that fits the unchanged images
best. Robust: the mean over the rows of the robustness table; worst: the lowest of them. Border AUC: for pneumonia, of
images whose inside is black; 0.5 is chance. Differences are to the first row, over the folds that both have, with 95 %
intervals paired over patients. Where no epoch was better than the start, a row has the scores of the head alone.
Minutes are those of training alone, beside the other trainings of `--jobs` and whatever else ran. All answers kept so
far are of networks whose blanked images had every class alike as their label, whatever the weights of the classes."""
SHOWN = ("macro_f1", "auc_pneumonia", "specificity", "loss")
COMPARED = ("macro_f1", "robust macro_f1", "loss")

Answers = dict[int, Any]  # of a variant, by fold: `logits` under every change, (changes, n, C), and `minutes`


def values(sample: Sample, logits: np.ndarray) -> dict[str, np.ndarray]:
    """Scores and their resamples: unchanged, in the mean over all changes, at the worst of them, and by the border.

    Of the calibrated answers, as they are served: the loss of an overconfident network says little of its worth.
    """
    temperature = fit_temperature(logits[0], sample.labels)
    *tables, border = [scores.resampled(sample, softmax(changed / temperature)) for changed in logits]
    found = {name: tables[0][name] for name in SHOWN}
    every = np.stack([table["macro_f1"] for table in tables])
    found |= {"robust macro_f1": every.mean(0), "worst macro_f1": every.min(0)}
    found["worst specificity"] = np.stack([table["specificity"] for table in tables]).min(0)
    return found | {"border auc": border["auc_pneumonia"]}


def table(answered: dict[str, Answers], samples: list[Sample]) -> pd.DataFrame:
    """One row per variant: means over its folds, and the difference to the first one with its interval. Then one for
    the mean of the logits of all networks of a fold that has several: what an ensemble could reach at best.

    Args:
        answered: by variant.
        samples: the validation images of each fold.
    """
    logits = {
        name: {fold: made["logits"].astype(np.float32) for fold, made in kept.items()}
        for name, kept in answered.items()
    }
    found = {name: {fold: values(samples[fold], one) for fold, one in kept.items()} for name, kept in logits.items()}
    rows, first = [], next(iter(found), "")
    for name, scored in found.items():
        minutes = np.mean([made["minutes"] for made in answered[name].values()])
        rows.append({"variant": name, "folds": len(scored), "minutes": minutes} | _row(scored, found[first]))
    networks = {fold: [kept[fold] for kept in logits.values() if fold in kept] for fold in found.get(first, ())}
    together = {fold: values(samples[fold], np.mean(each, 0)) for fold, each in networks.items() if len(each) > 1}
    if together:
        rows.append(
            {"variant": "all networks of a fold together", "folds": len(together), "minutes": math.nan}
            | _row(together, found[first])
        )
    return pd.DataFrame(rows)


def _row(found: dict[int, dict[str, np.ndarray]], others: dict[int, dict[str, np.ndarray]]) -> dict[str, Any]:
    """The mean scores over folds, and what they differ from those of the `others` over the folds of both."""
    row: dict[str, Any] = {}
    for score in next(iter(found.values())):
        row[score] = float(np.mean([one[score][0] for one in found.values()]))
    for score in COMPARED:
        differences = [found[fold][score] - others[fold][score] for fold in found.keys() & others.keys()]
        alone = found is others or not differences
        row[f"change of {score}"] = "" if alone else _interval(np.mean(differences, 0))
    return row


def _interval(resamples: np.ndarray) -> str:
    estimate = bootstrap.percentile(float(resamples[0]), resamples[1:])
    return f"{estimate.value:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"


def write(found: pd.DataFrame, images: int, folder: Path) -> None:
    """Write the table as `recipe.csv` and, for readers, as `RECIPE.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    found.to_csv(folder / "recipe.csv", index=False, float_format="%.4f")
    words = {"_": " ", "macro f1": "macro-F1", "auc": "AUC"}
    titles = [reduce(lambda name, pair: name.replace(*pair), words.items(), name) for name in found.columns]
    rows = [[_cell(value) for value in row] for row in found.to_numpy()]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [titles, ["---"] * len(titles), *rows])
    text = f"# What each part of the recipe is worth\n\n{EXPLAINED}\n\n{images:,} images. {machine()}.\n\n{table}\n"
    (folder / "RECIPE.md").write_text(text, encoding="utf-8")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3f}"
    return str(value)
