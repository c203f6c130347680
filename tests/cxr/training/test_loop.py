"""Training: resumed equals unbroken, frozen stays frozen, the best weights are kept however it ends."""

import copy
import dataclasses

import pytest
import torch

from cxr.errors import CxrError
from cxr.loading.build import build_loaders
from cxr.models import device
from cxr.models.freezing import split_network
from cxr.training import checkpoint, setup
from cxr.training.early_stopping import EarlyStopping
from cxr.training.loop import Callbacks, Training, train
from cxr.training.optimisation import build_optimizer
from tests.helpers import network, settings_with

CPU = device.Device(torch.device("cpu"), torch.float32)

pytestmark = pytest.mark.usefixtures("deterministic")


def fit(manifest, *, unfreeze=2, resume=None, callbacks=None, made=None, precision=CPU, **changed):
    keys = {"epochs": 4, "batch_size": 8, "patience": 10, "optimizer.lr": 0.001, **changed}
    settings = settings_with({"cache.views": 0} | {f"train.{k}": v for k, v in keys.items()}).train
    made = made or network()
    training = setup.set_up(made, manifest, settings, unfreeze=unfreeze, device=precision, seed=1, callbacks=callbacks)
    return made, train(training, resume)


def weights(made):
    return {name: value.clone() for name, value in made.module.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_it_learns_what_can_be_told_apart(manifest):
    _, result = fit(manifest, unfreeze=0, epochs=12, **{"optimizer.lr": 0.01})
    assert result.best.val_metric > 0.9
    assert result.history[-1].train_loss < result.history[0].train_loss / 2


@pytest.mark.slow
@pytest.mark.parametrize("unfreeze", [0, 2, "all"])
def test_what_is_frozen_does_not_move(manifest, unfreeze):
    made = network()
    before = weights(made)
    fit(manifest, unfreeze=unfreeze, made=made, epochs=1)
    moved = {name for name, value in weights(made).items() if not torch.equal(value, before[name])}
    if unfreeze == 0:
        assert moved == {"classifier.1.weight", "classifier.1.bias"}
    elif unfreeze == 2:
        # Neither weights nor the statistics of batch norms: a frozen batch norm stays in eval mode.
        assert not {name for name in moved if not name.startswith(("features.7", "features.8", "classifier"))}
        assert any("running_mean" in name for name in moved)
    else:
        assert "features.0.1.running_mean" in moved


@pytest.mark.slow
def test_statistics_of_trained_blocks_stay_where_they_are_told_to(manifest):
    made = network()
    before = weights(made)
    fit(manifest, made=made, epochs=1, batch_norm="frozen")
    moved = {name for name, value in weights(made).items() if not torch.equal(value, before[name])}
    assert not [name for name in moved if "running_" in name]
    assert "features.8.1.weight" in moved, "a frozen batch norm still learns its scale"


@pytest.mark.slow
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {
            "scheduler": "{_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: 4}",
            "select": "robust", "select_images": 5,
        },
        {
            "scheduler": "{_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: all}",
            "scheduler_step": "batch", "warmup": 1.0, "ema": 0.9, "layer_decay": 0.8, "clip_norm": 1.0,
            "sampler": "balanced", "class_weights": "none", "dropout": 0.3, "decay_norms": "false",
            "optimizer._target_": "torch.optim.AdamW", "optimizer.weight_decay": 0.1,
            "loss": "{_target_: torch.nn.CrossEntropyLoss, label_smoothing: 0.1}",
            "augment.flip": "true", "augment.crop_scale": "[0.5, 1.0]", "augment.aspect": 0.2, "augment.shear": 5,
            "augment.gamma": 0.2, "augment.clean": 0.2, "augment.blur": 1.0, "augment.noise": 0.05, "augment.jpeg": 40,
            "augment.border": 0.1, "augment.corners": 0.1, "augment.erase": 0.1, "augment.frame": 0.1,
            "augment.blank": 0.2, "augment.mixup": 0.3, "augment.cutmix": 0.3,
            "stages": "[{share: 0.5, size: 32, strength: 0.5}, {share: 0.5, size: 64, strength: 1.0}]",
        },
        {
            "unfreeze": "all", "scheduler_step": "batch",
            "scheduler": "{_target_: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.002, total_steps: all}",
            "loss": "{_target_: cxr.training.losses.FocalLoss, gamma: 2}",
        },
        {"scheduler": "{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, patience: 0, factor: 0.1}"},
    ],
    ids=["plain", "by epoch, robust", "everything", "one cycle, focal loss, whole network", "by loss"],
)  # fmt: skip
def test_a_resumed_training_reaches_the_same_weights_bit_for_bit(manifest, tmp_path, parts):
    augment = {"augment.rotate": 10, "augment.brightness": 0.1, **parts}
    unbroken, whole = fit(manifest, **augment)
    states = []

    def keep(state):
        checkpoint.save(state, tmp_path / "last.pt")
        states.append(checkpoint.load(tmp_path / "last.pt"))

    class Killed(BaseException):
        pass

    def die(record):
        if record.epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        fit(manifest, callbacks=Callbacks(on_epoch=die, on_checkpoint=keep), **augment)
    assert states[-1]["epoch"] == 2
    torch.manual_seed(12345)  # another process has other random states
    resumed, result = fit(manifest, resume=states[-1], **augment)
    assert same(weights(resumed), weights(unbroken))
    timeless = [dataclasses.replace(e, images_per_second=0, epoch_seconds=0) for e in (*result.history, *whole.history)]
    assert timeless[:4] == timeless[4:]


def test_one_step_moves_no_further_than_the_limit_of_the_gradient_allows(manifest):
    made = network()
    seen = [weights(made)]
    callbacks = Callbacks(on_epoch=lambda record: seen.append(weights(made)))
    plain_sgd = {"optimizer._target_": "torch.optim.SGD", "optimizer.lr": 10.0, "clip_norm": 1e-3}
    fit(manifest, made=made, unfreeze=0, epochs=1, batch_size=64, callbacks=callbacks, **plain_sgd)
    before, after = seen
    moved = torch.stack([(after[name] - before[name]).float().norm() for name in before]).norm()
    assert 0 < moved <= 10.0 * 1e-3 * 1.001


def test_a_checkpoint_of_another_training_is_refused(manifest, tmp_path):
    states = []
    fit(manifest, epochs=1, callbacks=Callbacks(on_checkpoint=lambda s: states.append(copy.deepcopy(s))))
    checkpoint.save(states[0], tmp_path / "last.pt")
    states[0] = checkpoint.load(tmp_path / "last.pt")
    with pytest.raises(CxrError, match=r"another training: train\.epochs was 1, now 4; train from scratch, without"):
        fit(manifest, resume=states[0], epochs=4)
    with pytest.raises(CxrError, match=r"another training: unfreeze was 2, now 1; train from scratch"):
        fit(manifest, resume=states[0], epochs=1, unfreeze=1)
    with pytest.raises(CxrError, match=r"another training: train\.select was clean, now robust; unfreeze was 2, now"):
        fit(manifest, resume=states[0], epochs=1, unfreeze=1, select="robust")
    with pytest.raises(CxrError, match=r'another training: train\.stages was \[\], now \[{"share": 1\.0, "size": 32'):
        fit(manifest, resume=states[0], epochs=1, stages="[{share: 1.0, size: 32, strength: 1.0}]")
    broken = {k: v for k, v in states[0].items() if k != "optimizer"}
    with pytest.raises(CxrError, match="does not fit this training"):
        fit(manifest, resume=broken, epochs=1)


def test_the_best_weights_are_the_ones_kept(manifest):
    kept = {}
    made = network()
    callbacks = Callbacks(
        on_start=lambda start: kept.update({0: weights(made)}),
        on_improved=lambda record: kept.update({record.epoch: weights(made)}),
    )
    _, result = fit(manifest, made=made, callbacks=callbacks, epochs=5, **{"optimizer.lr": 0.1})
    assert same(weights(made), kept[result.best.epoch])
    assert result.best.val_metric == max(record.val_metric for record in (result.start, *result.history))


def test_a_training_that_only_gets_worse_keeps_the_weights_it_began_with(manifest):
    made, good = fit(manifest, unfreeze=0, epochs=12, **{"optimizer.lr": 0.01})
    before = weights(made)
    scores = (good.best.val_loss, good.best.val_metric)
    improved = []
    worse = {"optimizer.lr": 3.0, "epochs": 3}
    _, result = fit(manifest, made=made, callbacks=Callbacks(on_improved=improved.append), **worse)
    assert min(record.val_loss for record in result.history) > result.start.val_loss
    assert not improved
    assert (result.best, result.best.epoch) == (result.start, 0)
    assert (result.start.val_loss, result.start.val_metric) == pytest.approx(scores, abs=1e-5)
    assert same(weights(made), before)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, CxrError])
def test_the_best_weights_are_kept_when_training_breaks_off(manifest, ending):
    kept = {}
    made = network()

    def stop(record):
        if record.epoch == 4:
            raise ending("now")

    callbacks = Callbacks(on_epoch=stop, on_improved=lambda record: kept.update(best=weights(made)))
    with pytest.raises(ending):
        fit(manifest, made=made, callbacks=callbacks, epochs=5, **{"optimizer.lr": 0.1})
    assert same(weights(made), kept["best"])


def test_patience_ends_the_training(manifest):
    _, result = fit(manifest, epochs=30, patience=2, **{"optimizer.lr": 1e-12})
    assert result.stopped == "patience"
    assert len(result.history) == result.best.epoch + 2
    assert result.best == result.start, "nothing can be learnt at that rate"


def test_early_stopping_counts_in_the_direction_of_the_metric():
    up, down = EarlyStopping(2, 0.1, True), EarlyStopping(2, 0.1, False)
    assert [up.improved(s, i) for i, s in enumerate((0.5, 0.55, 0.7, 0.6))] == [True, False, True, False]
    assert [down.improved(s, i) for i, s in enumerate((0.5, 0.45, 0.3, 0.4))] == [True, False, True, False]
    assert (up.best, up.best_epoch, up.waited, up.over) == (0.7, 2, 1, False)


def test_a_loss_that_is_not_finite_stops_with_epoch_and_step(manifest):
    kept = []
    with pytest.raises(CxrError, match=r"not finite in epoch 1, step [1-9].*lower the learning rate"):
        fit(manifest, callbacks=Callbacks(on_improved=kept.append), **{"optimizer.lr": 1e30})
    assert kept == []


def test_the_rate_of_an_epoch_is_the_highest_of_all_steps_and_blocks(manifest):
    keys = {"warmup": 1.0, "layer_decay": 0.5, "optimizer.lr": 0.001, "epochs": 2}
    _, result = fit(manifest, **keys)
    assert result.history[1].lr == pytest.approx(0.001)
    assert 0.0005 < result.history[0].lr <= 0.001, "a warm-up ends near the rate of the head"


def test_an_operation_without_a_deterministic_implementation_is_named(manifest, monkeypatch):
    """As on a GPU, where the pooling of AlexNet and VGG has none; on a CPU, `put_` has none."""
    step = Training.step

    def nondeterministic(self, x, y, count):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]), accumulate=False)
        return step(self, x, y, count)

    monkeypatch.setattr(Training, "step", nondeterministic)
    with pytest.raises(CxrError, match="^put_ .*does not have a deterministic implementation on this device; set det"):
        fit(manifest)


def test_class_weights_enter_the_training_loss_only(manifest):
    rows = manifest.rows[~((manifest.rows["label"] == "virus") & manifest.rows["path"].str.contains(r"-[2367]\."))]
    uneven = dataclasses.replace(manifest, rows=rows)
    losses = {}
    for kind in ("balanced", "none"):
        _, result = fit(uneven, epochs=1, class_weights=kind, **{"optimizer.lr": 1e-12})
        losses[kind] = result.history[0]
    assert losses["balanced"].train_loss != pytest.approx(losses["none"].train_loss, abs=1e-4)
    assert losses["balanced"].val_loss == pytest.approx(losses["none"].val_loss, abs=1e-6)


def test_workers_do_not_change_the_result(manifest):
    one, _ = fit(manifest, epochs=2, workers=1)
    three, _ = fit(manifest, epochs=2, workers=3)
    assert same(weights(one), weights(three))


def test_bfloat16_computes_nearly_the_same(manifest):
    _, exact = fit(manifest, epochs=1)
    _, rough = fit(manifest, epochs=1, precision=device.Device(torch.device("cpu"), torch.bfloat16))
    assert rough.history[0].train_loss == pytest.approx(exact.history[0].train_loss, rel=0.05)


def test_the_optimizer_is_fused_unless_told_otherwise():
    settings = settings_with({}).train
    made = network()
    assert build_optimizer(settings, made, made.module, CPU).defaults["fused"] is True
    plain = settings_with({"train.optimizer.fused": "false"}).train
    assert build_optimizer(plain, made, made.module, CPU).defaults["fused"] is False


def test_throughput_is_counted_in_images(manifest):
    made = network()
    prefix, _ = split_network(made, 0)
    fed = build_loaders(made, manifest, settings_with({}).train, None, prefix=prefix, unfreeze=0, device=CPU, seed=0)
    assert fed.train.images == 18
    assert fed.val.images == len(manifest.split("val"))
