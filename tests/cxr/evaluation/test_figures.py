"""Figures can be drawn from any result, and are not blank."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from cxr.datasets import figures, inspection
from cxr.datasets.layouts import ListedImage
from cxr.evaluation import plots
from cxr.training import curves
from cxr.training.results import Epoch, TrainingResult, Validation
from tests.helpers import CLASSES, small_set


def pixels(figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return np.asarray(Image.open(buffer).convert("L"))


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], [1, 1, 1, 1, 1, 1]], ids=["all classes", "one class"])
def test_evaluation(labels):
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 6)
    by_name = plots.classification(np.array(labels), probabilities, CLASSES, "test split", finding="pneumonia")
    assert set(by_name) == {"confusion", "roc", "precision_recall"}
    for figure in by_name.values():
        assert pixels(figure).std() > 5


def test_split(tmp_path):
    manifest = small_set(tmp_path)
    files = [ListedImage(row.path, row.label, row.patient, "train") for row in manifest.rows.itertuples()]
    table, _ = inspection.survey(tmp_path, files, workers=1)
    table = table.assign(split=list(manifest.rows.set_index("path").loc[table["path"], "split"]))
    for figure in figures.figures(manifest, table, 0).values():
        assert pixels(figure).std() > 5


@pytest.mark.parametrize("epochs", [1, 4])
@pytest.mark.parametrize("best", [0, 1])
@pytest.mark.parametrize("clean", [None, 0.6])
def test_training(epochs, best, clean):
    numbers = {"lr": 1e-3, "images_per_second": 10.0, "epoch_seconds": 1.0}
    history = [
        Epoch(epoch=n, val_loss=1.1 / n, val_metric=0.5, val_metric_clean=clean, train_loss=1.0 / n, **numbers)
        for n in range(1, epochs + 1)
    ]
    start = Validation(0, 2.0, 0.3, val_metric_clean=clean)
    result = TrainingResult(start, history, [start, *history][best], "epochs")
    assert pixels(curves.training_curves(result, "MulticlassF1Score")).std() > 5


def test_of_many_images_a_scatter_plot_shows_some(monkeypatch):
    monkeypatch.setattr(figures, "_POINTS", 50)
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"label": np.array(CLASSES)[rng.integers(0, 3, 300)], "width": 80 + rng.integers(0, 40, 300)})
    for count, shown, title in ((50, 50, "Sizes of 50 images"), (300, 50, "Sizes of 300 images (50 shown)")):
        figure = figures.sizes(table[:count].assign(height=100), CLASSES)
        scatter = figure.axes[0]
        assert scatter.get_title() == title
        assert sum(len(points.get_offsets()) for points in scatter.collections) == shown
        plt.close(figure)
