"""Averaged weights: they follow the raw ones, and take their place where they are better."""

import pytest
import torch

from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.loading.rasters import ImageDataset
from cxr.models.bundle import Bundle
from cxr.training import averaging, setup
from cxr.training.loop import Callbacks, train
from tests.cxr.training.test_loop import CPU, fit, same, weights
from tests.helpers import network, settings_with

pytestmark = pytest.mark.usefixtures("deterministic")


def test_averaged_weights_are_kept_where_they_are_better(manifest):
    """At a rate that throws the raw weights about, their average is the better one."""
    made, kept = network(), {}
    callbacks = Callbacks(on_improved=lambda record: kept.update({record.epoch: weights(made)}))
    changed = {"ema": 0.9, "optimizer.lr": 0.02, "epochs": 6}
    _, result = fit(manifest, made=made, callbacks=callbacks, **changed)
    assert any(record.averaged for record in result.history)
    assert same(weights(made), kept[result.best.epoch])
    best = result.history[result.best.epoch - 1]
    assert best.averaged, "else this test says nothing of averaged weights"
    served = predict_logits(Predictor(Bundle(made)), ImageDataset(manifest.split("val"), made.spec), 8)
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(served), torch.from_numpy(manifest.split("val").labels()))
    assert float(loss) == pytest.approx(best.val_loss, abs=1e-4), "the averaged weights are those that are served"
    _, raw = fit(manifest, **{**changed, "ema": 0.0})
    for record, plain in zip(result.history, raw.history, strict=True):
        assert record.train_loss == plain.train_loss, "averaging does not change the training"
        assert record.val_metric >= plain.val_metric
        assert record.averaged or record.val_loss == plain.val_loss


def test_an_average_follows_weights_and_statistics():
    made = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    mean = averaging.averaged(made, 0.5)
    values = []
    for step in range(4):
        with torch.no_grad():
            made[0].weight.fill_(step)
            made[1].running_mean.fill_(10 * step)
            made[1].num_batches_tracked.fill_(step)
        mean.update_parameters(made)
        values.append(mean.module[0].weight[0, 0].item())
    decays = [min(0.5, (1 + n) / (10 + n)) for n in range(1, 4)]
    wanted = [0.0]
    for step, decay in enumerate(decays, start=1):
        wanted.append(decay * wanted[-1] + (1 - decay) * step)
    assert values == pytest.approx(wanted)
    assert float(mean.module[1].running_mean[0]) == pytest.approx(10 * wanted[-1])
    assert int(mean.module[1].num_batches_tracked) == 3
    assert averaging.averaged(made, 0.0) is None


def statistics(module):
    return {name: value.clone() for name, value in module.state_dict().items() if "running_" in name}


def test_averaged_weights_have_the_frozen_statistics_of_the_network(manifest):
    keys = {"epochs": 1, "batch_size": 4, "ema": 0.9, "batch_norm": "frozen", "optimizer.lr": 0.01}
    settings = settings_with({f"train.{k}": v for k, v in keys.items()}).train
    made = network()
    before = statistics(made.module)
    training = setup.set_up(made, manifest, settings, unfreeze=2, device=CPU, seed=1)
    train(training)
    mean = statistics(training.averaged.module)
    assert mean and same(mean, statistics(training.suffix))
    assert all(torch.equal(mean[name], before[name]) for name in mean)
