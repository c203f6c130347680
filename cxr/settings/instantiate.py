"""Construction of objects named in settings, such as `{_target_: torch.optim.AdamW, lr: 1.0e-3}`."""

import difflib
import importlib
import inspect
from typing import Any

from cxr.errors import CxrError, in_short
from cxr.settings.schema import ALLOWED_PACKAGES, Target


def resolve(target: Target) -> type:
    """Import the class that `target` names, which must be defined in one of the allowed packages."""
    module_name, _, name = target.target.rpartition(".")
    module = _import_module(module_name, target.target)
    cls = getattr(module, name, None)
    if cls is None:
        classes = [n for n, value in vars(module).items() if inspect.isclass(value)]
        near = difflib.get_close_matches(name, classes, n=1)
        hint = f"did you mean {module_name}.{near[0]}?" if near else "give the full import path of a class"
        raise CxrError(f"{target.target}: module {module_name} has no {name!r}; {hint}")
    if not inspect.isclass(cls) or not f"{cls.__module__}.".startswith(ALLOWED_PACKAGES):
        packages = ", ".join(package.rstrip(".") for package in ALLOWED_PACKAGES)
        raise CxrError(f"{target.target} is not a class of {packages}; give the full import path of a class")
    return cls


def check(target: Target) -> None:
    """Raise `CxrError` if the class does not exist or does not accept the given arguments."""
    accepted = inspect.signature(resolve(target)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        return
    for name in target.arguments:
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(accepted)}"
            raise CxrError(f"{target.target} takes no argument {name!r}; {hint}")


def build(target: Target, *args: Any, kind: type | None = None, **defaults: Any) -> Any:
    """Build the object that `target` describes.

    Args:
        target: the class and its keyword arguments.
        args: positional arguments.
        kind: class that the object must be an instance of.
        defaults: keyword arguments for which `target` has no value.
    """
    cls = resolve(target)
    if kind is not None and not issubclass(cls, kind):
        raise CxrError(f"expected a subclass of {kind.__name__}, got {target.target}")
    check(target)
    try:
        return cls(*args, **{**defaults, **target.arguments})
    except Exception as error:  # constructors of libraries raise any type: assertions, attribute and import errors
        raise CxrError(f"{target.target} cannot be built with {target.arguments}: {in_short(error)}") from None


def loss(target: Target, weight: Any | None) -> Any:
    """Build a loss over (logits, labels); `weight` has one weight per class, shape (C,), or is None."""
    import torch

    if weight is None:
        return build(target, kind=torch.nn.Module)
    if "weight" not in inspect.signature(resolve(target)).parameters:
        raise CxrError(f"{target.target} takes no class weights; set class_weights=none, or use CrossEntropyLoss")
    return build(target, kind=torch.nn.Module, weight=weight)


def metric(target: Target, classes: int) -> Any:
    """Build a torchmetrics metric over (probabilities, labels) of `classes` classes."""
    import torchmetrics

    cls: Any = resolve(target)
    defaults: dict[str, Any] = {}
    if "num_classes" in inspect.signature(cls.__init__).parameters:
        defaults = {"num_classes": classes}
    elif inspect.signature(cls.__new__).parameters.keys() >= {"task", "num_classes"}:
        defaults = {"task": "multiclass", "num_classes": classes}
    result = build(target, kind=torchmetrics.Metric, **defaults)
    if result.higher_is_better is None:
        raise CxrError(f"{target.target} does not define whether higher is better; choose another metric")
    return result


def _import_module(name: str, full_name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise CxrError(f"{full_name}: no module named {name!r}; give the full import path of a class") from None
