"""The metric that chooses the best epoch: of unchanged images, or its mean over changes of them."""

import numpy as np
import pytest
import torch

from cxr.evaluation.predictor import Predictor
from cxr.loading.changes import CHANGES
from cxr.loading.rasters import ImageDataset
from cxr.models.bundle import Bundle
from cxr.training import setup
from tests.cxr.training.test_loop import CPU, fit
from tests.helpers import network, settings_with

pytestmark = pytest.mark.usefixtures("deterministic")


def test_robust_selection_is_by_the_mean_over_the_changes(manifest):
    changed = {"epochs": 2, "metric": "{_target_: torchmetrics.classification.MulticlassAccuracy, average: micro}"}
    _, clean = fit(manifest, **changed)
    made, result = fit(manifest, select="robust", **changed)
    assert [e.val_metric_clean for e in (result.start, *result.history)] == [
        e.val_metric for e in (clean.start, *clean.history)
    ]
    assert [e.val_loss for e in result.history] == [e.val_loss for e in clean.history]
    assert result.best.val_metric == max(e.val_metric for e in (result.start, *result.history))
    predictor, val = Predictor(Bundle(made)), ImageDataset(manifest.split("val"), made.spec)
    rasters, shares = val.rasters(np.arange(len(val))), []
    for change in CHANGES.values():
        predicted = predictor.logits(np.stack([change(raster) for raster in rasters])).argmax(1)
        shares.append((predicted == val.labels).mean())
    assert result.best.val_metric == pytest.approx(np.mean(shares)) != shares[0]


def test_robust_selection_looks_at_some_patients(manifest):
    """The metric of the unchanged images stays that of the whole split."""
    settings = settings_with({"train.select": "robust", "train.select_images": 4}).train
    training = setup.set_up(network(), manifest, settings, unfreeze=0, device=CPU, seed=1)
    assert [loader.images for loader in training.val_changed] == [4] * (len(CHANGES) - 1)
    assert training.val.images == len(manifest.split("val"))
    labels = {tuple(torch.cat([y for _, y in loader.epoch(0)]).tolist()) for loader in training.val_changed}
    assert len(labels) == 1, "the same images under every change"


def test_a_robust_metric_is_never_taken_for_a_clean_one():
    names = [settings_with({"finetune.select": select}).finetune.metric_name for select in ("clean", "robust")]
    assert names == ["MulticlassF1Score", "robust MulticlassF1Score"]
