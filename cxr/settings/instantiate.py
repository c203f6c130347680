"""Objects named in settings: `_target_: torch.optim.AdamW` and its arguments, checked before they are built."""

import difflib
import importlib
import inspect
from typing import Any

from cxr.errors import CxrError
from cxr.settings.schema import ALLOWED_PACKAGES, Target


def resolve(target: Target) -> type:
    """The class that `target` names. Only classes defined under the allowed packages are given out."""
    module_name, _, name = target.target.rpartition(".")
    module = _module(module_name, target.target)
    found = getattr(module, name, None)
    if found is None:
        classes = [n for n, value in vars(module).items() if inspect.isclass(value)]
        near = difflib.get_close_matches(name, classes, n=1)
        hint = f"did you mean {module_name}.{near[0]}?" if near else "name a class by its full import path"
        raise CxrError(f"{target.target}: {module_name} has no {name}; {hint}")
    if not inspect.isclass(found) or not f"{found.__module__}.".startswith(ALLOWED_PACKAGES):
        raise CxrError(f"{target.target} is no class of {', '.join(ALLOWED_PACKAGES)}; name one by its full path")
    return found


def check(target: Target) -> None:
    """Raise `CxrError` where the class does not exist or does not take the arguments it is given."""
    accepted = inspect.signature(resolve(target)).parameters
    if any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        return
    for name in target.arguments:
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(accepted)}"
            raise CxrError(f"{target.target} takes no argument {name!r}; {hint}")


def build(target: Target, *args: Any, kind: type | None = None, **extra: Any) -> Any:
    """Build the object from its own arguments, `args` in front and `extra` where it does not say otherwise.

    `kind` is the class it must be of.
    """
    cls = resolve(target)
    if kind is not None and not issubclass(cls, kind):
        raise CxrError(f"{target.target} is no {kind.__name__}, which is what is needed here")
    check(target)
    try:
        return cls(*args, **{**extra, **target.arguments})
    except (TypeError, ValueError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise CxrError(f"{target.target} cannot be built with {target.arguments}: {line}") from None


def loss(target: Target, weight: Any | None) -> Any:
    """A loss over (logits, labels); `weight` of shape (C,) weighs the classes, None leaves them equal."""
    import torch

    if weight is None:
        return build(target, kind=torch.nn.Module)
    if "weight" not in inspect.signature(resolve(target)).parameters:
        raise CxrError(f"{target.target} takes no class weights; set class_weights=none, or use CrossEntropyLoss")
    return build(target, kind=torch.nn.Module, weight=weight)


def metric(target: Target, classes: int) -> Any:
    """A torchmetrics metric over (probabilities, labels) that knows the number of classes and what is better."""
    import torchmetrics

    cls = resolve(target)
    accepted = inspect.signature(cls.__init__).parameters
    extra = {"num_classes": classes} if "num_classes" in accepted else {}
    if not extra and inspect.signature(cls.__new__).parameters.keys() >= {"task", "num_classes"}:
        extra = {"task": "multiclass", "num_classes": classes}
    built = build(target, kind=torchmetrics.Metric, **extra)
    if built.higher_is_better is None:
        raise CxrError(f"{target.target} does not say whether higher is better; choose another metric")
    return built


def _module(name: str, full: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise CxrError(f"{full}: there is no module {name}; name a class by its full import path") from None
