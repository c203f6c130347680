"""Optimizer and learning rates: parameter groups by depth, warm-up, and a scheduler by name."""

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

from cxr.errors import CxrError, in_short
from cxr.models.build import Network
from cxr.models.device import Device
from cxr.models.freezing import depths
from cxr.settings import instantiate
from cxr.settings.schema import TARGET_KEY, Target, TrainingSettings

ALL = "all"  # argument of a scheduler that stands for the number of its steps
_RATES = ("base_lr", "max_lr")  # arguments of a scheduler that replace the learning rates of the groups
_COUNTS = ("total_steps", "T_max", "total_iters")  # arguments of PyTorch's schedulers that are numbers of steps
_WARMUP_START = 0.01  # share of the learning rate in the first step


def build_optimizer(
    settings: TrainingSettings, network: Network, suffix: nn.Module, device: Device
) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters of `suffix`, whose names are those in the network.

    It is fused into one kernel where its class supports that and the settings do not say otherwise.
    """
    target, extra = settings.optimizer, {}
    can_fuse = "fused" in inspect.signature(instantiate.resolve(target)).parameters
    if can_fuse and not {"fused", "foreach"} & set(target.arguments):
        extra["fused"] = device.device.type in ("cuda", "cpu")
    groups = parameter_groups(settings, network, suffix)
    return instantiate.build(target, groups, kind=torch.optim.Optimizer, **extra)


def parameter_groups(settings: TrainingSettings, network: Network, suffix: nn.Module) -> list[dict[str, Any]]:
    """Groups for an optimizer: parameters of the same depth, with weight decay and without.

    The head has the learning rate of the settings; each block before it `layer_decay` times that of the next (Clark et
    al., "ELECTRA", 2020). With `decay_norms` off, vectors (norms and biases) have no weight decay.
    """
    lr = float(settings.optimizer.arguments.get("lr") or 0)
    depth = depths(network)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in suffix.named_parameters():
        if not parameter.requires_grad:
            continue
        before_head, decays = depth[name], settings.decay_norms or parameter.ndim > 1
        if (before_head, decays) not in groups:
            options: dict[str, Any] = {"params": []}
            if settings.layer_decay < 1:
                options["lr"] = lr * settings.layer_decay**before_head
            if not decays:
                options["weight_decay"] = 0.0
            groups[before_head, decays] = options
        groups[before_head, decays]["params"].append(parameter)
    return list(groups.values())


class Schedule:
    """Learning rates over a training: a linear warm-up, then the scheduler of the settings.

    `after_batch` and `after_epoch` are called by the loop after every step of the optimizer and every epoch.

    Raises:
        CxrError: settings that do not go together, or a scheduler that cannot be built or cannot take a step.
    """

    def __init__(self, settings: TrainingSettings, optimizer: torch.optim.Optimizer, batches: int):
        warmup = round(settings.warmup * batches)
        self.settings = settings
        self.by_batch = settings.scheduler_step == "batch" or settings.scheduler is None
        steps = settings.epochs * batches - warmup if self.by_batch else settings.epochs
        if steps < 1:
            raise CxrError(f"warmup={settings.warmup:g} leaves no epoch of {settings.epochs}; set a smaller one")
        self.scheduler = _scheduler(settings, optimizer, steps)
        if warmup:
            rising = LinearLR(optimizer, _WARMUP_START, total_iters=warmup)
            then = self.scheduler or ConstantLR(optimizer, 1.0)
            self.scheduler = SequentialLR(optimizer, [rising, then], [warmup])

    def after_batch(self) -> None:
        """Take a step of a warm-up, and of a scheduler that steps by batch."""
        if self.by_batch and self.scheduler is not None:
            self._step()

    def after_epoch(self, val_loss: float) -> None:
        """Take a step of a scheduler that steps by epoch."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self._step(val_loss)
        elif not self.by_batch:
            self._step()

    def _step(self, *reads: float) -> None:
        """Take a step of the scheduler, which may have been set up for fewer of them."""
        try:
            self.scheduler.step(*reads)
        except Exception as error:  # schedulers raise any type, by the arguments they were given
            target = self.settings.scheduler
            if target is None:  # the warm-up, which is ours
                raise
            counts = [name for name in target.arguments if name in _COUNTS]
            remedy = f"set {counts[0]}: {ALL}" if counts else "give other arguments or another scheduler"
            raise CxrError(
                f"{self.settings.section}.scheduler: {target.target} with {target.arguments} cannot take a step "
                f"({in_short(error)}); {remedy}"
            ) from None

    def state_dict(self) -> dict[str, Any] | None:
        """State to resume from."""
        return self.scheduler.state_dict() if self.scheduler is not None else None

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Continue where `state` was taken."""
        if self.scheduler is not None and state is not None:
            self.scheduler.load_state_dict(state)


def _scheduler(settings: TrainingSettings, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    target = settings.scheduler
    if target is None:
        return None
    arguments = {name: steps if value == ALL else value for name, value in target.arguments.items()}
    if settings.layer_decay < 1:  # the schema has made sure that there is a rate
        lr = float(settings.optimizer.arguments["lr"])
        shares = [group["lr"] / lr for group in optimizer.param_groups]
        numbers = {name: arguments[name] for name in _RATES if isinstance(arguments.get(name), int | float)}
        arguments |= {name: [rate * share for share in shares] for name, rate in numbers.items()}
    return instantiate.build(
        Target.model_validate({TARGET_KEY: target.target, **arguments}), optimizer, kind=LRScheduler
    )
