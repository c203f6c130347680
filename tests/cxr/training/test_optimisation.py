"""Learning rates by depth and over time are those that were asked for."""

import pytest
import torch

from cxr.errors import CxrError
from cxr.models import device
from cxr.models.freezing import blocks, split_network
from cxr.training.optimisation import Schedule, build_optimizer, parameter_groups
from tests.helpers import network, settings_with

CPU = device.Device(torch.device("cpu"), torch.float32)
COSINE = "{_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: all}"
ONE_CYCLE = "{_target_: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.4, total_steps: all}"
CYCLIC = "{_target_: torch.optim.lr_scheduler.CyclicLR, base_lr: 0.1, max_lr: 0.4, cycle_momentum: false}"
PLATEAU = "{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, patience: 0, factor: 0.5}"


def given(**changed):
    keys = {"epochs": 4, "optimizer.lr": 0.1, **changed}
    return settings_with({f"finetune.{name}": value for name, value in keys.items()}).finetune


def test_the_rate_falls_with_every_block_towards_the_input():
    made = network()
    groups = parameter_groups(given(layer_decay=0.5), made, made.module)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    names = blocks(made)
    for name, parameter in made.module.named_parameters():
        before_head = next((len(names) - i for i, block in enumerate(names) if name.startswith(f"{block}.")), 0)
        assert rates[id(parameter)] == pytest.approx(0.1 * 0.5**before_head), name
    assert len(names) > 5 and len({group["lr"] for group in groups}) == len(names) + 1


def test_norms_and_biases_have_no_weight_decay_if_so_told():
    made = network()
    _, suffix = split_network(made, 2)
    settings = given(decay_norms="false", **{"optimizer._target_": "torch.optim.AdamW", "optimizer.weight_decay": 0.1})
    optimizer = build_optimizer(settings, made, suffix, CPU)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for parameter in suffix.parameters():
        assert decays.pop(id(parameter)) == (0.1 if parameter.ndim > 1 else 0.0)
    assert not decays, "nothing of the frozen half is optimised"


def rates(settings, batches=5, losses=(1.0, 0.9, 0.95, 0.9)):
    """The learning rate of every step, epoch by epoch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = Schedule(settings, optimizer, batches)
    seen = []
    for loss in losses:
        for _ in range(batches):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_batch()
        schedule.after_epoch(loss)
    return seen


def test_a_warm_up_rises_batch_by_batch_to_the_rate():
    seen = rates(given(warmup=1.0))
    assert seen[0] < 0.01 and seen[:6] == sorted(seen[:6]) and len(set(seen[:6])) == 6
    assert seen[5:] == pytest.approx([0.1] * 15)


def test_cosine_by_batch_falls_from_the_warm_up_to_zero():
    seen = rates(given(warmup=1.0, scheduler=COSINE, scheduler_step="batch"))
    assert max(seen) == pytest.approx(0.1) and seen.index(max(seen)) in (5, 6)
    assert seen[6:] == sorted(seen[6:], reverse=True) and seen[-1] < 0.002


def test_by_epoch_the_rate_stays_within_an_epoch():
    seen = rates(given(scheduler=COSINE))
    assert [len(set(seen[i : i + 5])) for i in (0, 5, 10, 15)] == [1] * 4
    assert seen[0] == 0.1 > seen[5] > seen[10] > seen[15] > 0
    seen = rates(given(scheduler=PLATEAU))
    assert [seen[i] for i in (0, 5, 10, 15)] == pytest.approx([0.1, 0.1, 0.1, 0.05])


def test_one_cycle_goes_up_and_down():
    seen = rates(given(scheduler=ONE_CYCLE, scheduler_step="batch"))
    assert max(seen) == pytest.approx(0.4, rel=0.05) and seen[0] < 0.05 and seen[-1] < 0.01


@pytest.mark.parametrize("scheduler", [COSINE, ONE_CYCLE, CYCLIC])
def test_a_scheduler_keeps_the_rates_by_depth_apart(scheduler):
    settings = given(layer_decay=0.5, scheduler=scheduler, scheduler_step="batch")
    made = network()
    optimizer = build_optimizer(settings, made, made.module, CPU)
    apart = [group["lr"] / optimizer.param_groups[0]["lr"] for group in optimizer.param_groups]
    schedule = Schedule(settings, optimizer, 5)
    for _ in range(19):
        optimizer.step()
        schedule.after_batch()
        rates = [group["lr"] for group in optimizer.param_groups]
        assert [rate / rates[0] for rate in rates] == pytest.approx(apart)
    assert max(apart) / min(apart) > 100


def test_a_warm_up_that_is_all_of_a_training():
    with pytest.raises(CxrError, match=r"warmup=3\.95 leaves no epoch of 4; set a smaller one"):
        rates(given(warmup=3.95))  # of the 20 steps, it would take 20


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (
            {"_target_": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.001, "total_steps": 1},
            r"finetune\.scheduler: .*OneCycleLR with .*'total_steps': 1.* cannot take a step "
            r"\(Tried to step 2 times\. .*; set total_steps: all$",
        ),
        (
            {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 0},
            r"finetune\.scheduler: .*StepLR .* cannot take a step \(.*zero\); "
            "give other arguments or another scheduler$",
        ),
    ],
)
@pytest.mark.parametrize(("step", "warmup"), [("epoch", 0.0), ("batch", 0.0), ("batch", 0.2)])
def test_a_scheduler_that_cannot_take_a_step(scheduler, words, step, warmup):
    with pytest.raises(CxrError, match=words):
        rates(given(scheduler=scheduler, scheduler_step=step, warmup=warmup))
