"""Whether the classes that settings name can do their work in a training, tried on a few numbers."""

import torch
from torch import nn
from torch.nn import functional

from cxr.errors import CxrError, in_short
from cxr.settings import instantiate
from cxr.settings.schema import Target, TrainingSettings
from cxr.training.optimisation import Schedule

_BATCHES = 100  # of the epoch that a scheduler is tried for


def check(settings: TrainingSettings, classes: int) -> None:
    """Try loss, metric, optimizer and scheduler of a training of so many classes.

    Raises:
        CxrError: one of them cannot be built, or cannot do its work.
    """
    _check_loss(settings, classes)
    check_metric(f"{settings.section}.metric", settings.metric, classes)
    _check_steps(settings)


def check_metric(name: str, target: Target, classes: int) -> None:
    """Raise `CxrError` unless the metric of the setting `name` gives one number for probabilities and labels."""
    metric = instantiate.metric(target, classes)
    labels = torch.arange(classes).repeat(2)
    try:
        metric.update(functional.one_hot(labels, classes).float(), labels)
        float(metric.compute())
    except Exception as error:  # metrics raise any type
        raise CxrError(
            f"{name}: {target.target} does not give one number for probabilities of shape (n, {classes}) and labels of "
            f"shape (n,) ({in_short(error)}); choose another metric, or other arguments"
        ) from None


def _check_loss(settings: TrainingSettings, classes: int) -> None:
    weight = torch.ones(classes) if settings.class_weights == "balanced" else None
    loss = instantiate.loss(settings.loss, weight)
    name = f"{settings.section}.loss: {settings.loss.target}"
    logits = torch.linspace(-1, 1, 2 * classes).reshape(2, classes)
    labels = {"classes": torch.arange(2)}
    if settings.augment.softens:
        labels["probabilities"] = torch.full((2, classes), 1 / classes)
    for kind, y in labels.items():
        try:
            once, twice = loss(logits, y), loss(logits.repeat(2, 1), torch.cat([y, y]))
        except Exception as error:  # losses raise any type
            blended = " or no augment.blank, mixup and cutmix" if kind == "probabilities" else ""
            raise CxrError(
                f"{name} cannot compare logits with labels that are {kind} ({in_short(error)}); "
                f"set another loss{blended}"
            ) from None
        if once.shape or not torch.isclose(once, twice):
            raise CxrError(f"{name} does not give the mean over a batch; leave its argument reduction at mean")


def _check_steps(settings: TrainingSettings) -> None:
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = instantiate.build(settings.optimizer, [parameter], kind=torch.optim.Optimizer)
    Schedule(settings, optimizer, _BATCHES)
    parameter.grad = torch.ones(2, 2)
    try:
        optimizer.step()
    except Exception as error:  # optimizers raise any type
        raise CxrError(
            f"{settings.section}.optimizer: {settings.optimizer.target} cannot take a step from dense gradients alone "
            f"({in_short(error)}); choose another optimizer"
        ) from None
