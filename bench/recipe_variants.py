"""The variants that `bench.recipe` compares, as settings on top of the profile `cpu`, which is the first of them.

A variant is compared with the one that its name begins with: "seven epochs, no tone" with "seven epochs". Most parts
are judged in seven epochs, since those take half the time of the twelve of the recipe. The recipe before had a third of
the learning rate, and the one before that moved its images ("geometry").
"""

from typing import Any

_LEVEL = {"brightness": 0.0, "contrast": 0.0, "gamma": 0.0}
_SMOOTHED = "{_target_: torch.nn.CrossEntropyLoss, label_smoothing: 0.1}"


def finetune(**changed: Any) -> dict[str, Any]:
    """Settings of the section `finetune`."""
    return {f"finetune.{name}": value for name, value in changed.items()}


def augment(**changed: Any) -> dict[str, Any]:
    """Settings of the section `finetune.augment`."""
    return finetune(**{f"augment.{name}": value for name, value in changed.items()})


def _stages(*stages: tuple[float, int, float]) -> str:
    """Stages of growing size, from their shares of the epochs, pixels and strengths."""
    named = (f"{{share: {share}, size: {size}, strength: {strength}}}" for share, size, strength in stages)
    return f"[{', '.join(named)}]"


def _rate(lr: float) -> dict[str, Any]:
    return finetune(**{"optimizer.lr": lr})


WITHOUT = {  # the recipe without each of its parts
    "centre crop": {"model.resize_mode": "crop"},
    "trained batch norms": finetune(batch_norm="trained"),
    "no averaged weights": finetune(ema=0.0),
    "constant rate": finetune(scheduler="null", warmup=0.0),
    "no class weights": finetune(class_weights="none"),
    "no augmentation": augment(**_LEVEL, clean=1.0, blank=0.0),
    "no tone": augment(**_LEVEL),
    "no degradation": augment(clean=1.0),
    "no masks": augment(border=0.0, corners=0.0),
    "no blanked images": augment(blank=0.0),
    "every image degraded": augment(clean=0.0),
    "two blocks": finetune(unfreeze=2),
}
TRIED = {  # and not part of it
    "rotated and shifted": augment(rotate=7.0, translate=0.03),
    "strong crops": augment(crop_scale="[0.4, 1.0]"),
    "a quarter blanked": augment(blank=0.25),
    "exchanged frames": augment(frame=0.2),
    "mix-up": augment(mixup=0.2),
    "label smoothing": finetune(loss=_SMOOTHED),
    "three times the rate": _rate(9e-4),
    "whole network": finetune(unfreeze="all", layer_decay=0.8),
    "growing size": finetune(stages=_stages((0.5, 128, 0.5), (0.2, 176, 0.75), (0.3, 224, 1.0))),
    "288 pixels": {"model.input_size": 288},
    "efficientnet_lite1": {"model.name": "efficientnet_lite1"},
    "efficientnet_lite2": {"model.name": "efficientnet_lite2"},
    "chosen by robustness": finetune(select="robust"),
}
_PARTS = {**WITHOUT, **TRIED}


def _below(name: str, base: dict[str, Any], *parts: str) -> dict[str, dict[str, Any]]:
    """A variant, and others that change a part of it; a part of the same name replaces that of the base."""
    return {name: base} | {f"{name}, {part}": {**base, **_PARTS[part]} for part in parts}


_SEVEN = finetune(epochs=7, patience=7)
_THIRD = _rate(1e-4)
_MOVED = {**_THIRD, **augment(crop_scale="[0.7, 1.0]", aspect=0.1, rotate=7.0, translate=0.03)}
_SECOND = {**_SEVEN, **_MOVED}
_FIRST = {**_SECOND, **augment(blank=0.0)}

VARIANTS: dict[str, dict[str, Any]] = {
    **_below("recipe", {}, "centre crop", "no averaged weights", "three times the rate"),
    "recipe, twenty epochs": finetune(epochs=20, patience=20),
    "head alone": {**finetune(unfreeze=0, epochs=1), **_rate(1e-12)},
    **_below("seven epochs", _SEVEN, *_PARTS),
    "a third of the rate": _THIRD,
    **_below("a third of the rate, seven epochs", {**_THIRD, **_SEVEN}, "no augmentation"),
    **_below("geometry", _MOVED, "a quarter blanked"),
    **_below(
        "geometry, seven epochs",
        _SECOND,
        *("centre crop", "no averaged weights", "constant rate", "no class weights", "no tone", "two blocks"),
        *("strong crops", "a quarter blanked", "exchanged frames", "mix-up", "label smoothing"),
        "efficientnet_lite1",
    ),
    "geometry, seven epochs, three times the rate": {**_SECOND, **_rate(3e-4)},
    "geometry, seven epochs, whole network": {**_SECOND, **TRIED["whole network"], **_rate(2e-4)},
    **_below(
        "geometry, seven epochs, no blanked images",
        _FIRST,
        *("trained batch norms", "no degradation", "no masks", "growing size", "288 pixels"),
    ),
}
