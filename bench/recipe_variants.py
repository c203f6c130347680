"""The variants that `bench.recipe` compares, as settings on top of the profile `cpu`, which is the first of them."""

from typing import Any

_LEVEL = {"brightness": 0.0, "contrast": 0.0, "gamma": 0.0}
_MOVED = {"crop_scale": "[0.7, 1.0]", "aspect": 0.1, "rotate": 7.0, "translate": 0.03}
_MASKS = {"border": 0.0, "corners": 0.0}


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


_GROWING = finetune(stages=_stages((0.5, 128, 0.5), (0.2, 176, 0.75), (0.3, 224, 1.0)))
_SEVEN = finetune(epochs=7, patience=7)
_SMOOTHED = "{_target_: torch.nn.CrossEntropyLoss, label_smoothing: 0.1}"
_SECOND = {**_SEVEN, **augment(**_MOVED)}  # what the recipe was made of, and before that
_FIRST = {**_SECOND, **augment(blank=0.0)}

VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "head alone": finetune(unfreeze=0, epochs=1, **{"optimizer.lr": 1e-12}),
    # The recipe without each of its parts.
    "seven epochs": _SEVEN,
    "centre crop": {"model.resize_mode": "crop"},
    "trained batch norms": finetune(batch_norm="trained"),
    "no averaged weights": finetune(ema=0.0),
    "constant rate": finetune(scheduler="null", warmup=0.0),
    "no class weights": finetune(class_weights="none"),
    "no augmentation": augment(**_LEVEL, clean=1.0, blank=0.0),
    "no tone": augment(**_LEVEL),
    "no degradation": augment(clean=1.0),
    "no masks": augment(**_MASKS),
    "no blanked images": augment(blank=0.0),
    "every image degraded": augment(clean=0.0),
    "two blocks": finetune(unfreeze=2),
    # Tried, and not part of it.
    "twenty epochs": finetune(epochs=20, patience=20),
    "geometry": augment(**_MOVED),
    "rotated and shifted": augment(rotate=7.0, translate=0.03),
    "geometry, a quarter blanked": augment(**_MOVED, blank=0.25),
    "a quarter blanked": augment(blank=0.25),
    "whole network": finetune(unfreeze="all"),
    "whole network, rate by depth": finetune(unfreeze="all", layer_decay=0.8, **{"optimizer.lr": 2e-4}),
    "three times the rate": finetune(**{"optimizer.lr": 3e-4}),
    "mix-up": augment(mixup=0.2),
    "label smoothing": finetune(loss=_SMOOTHED),
    "growing size": _GROWING,
    "288 pixels": {"model.input_size": 288},
    "efficientnet_lite1": {"model.name": "efficientnet_lite1"},
    "efficientnet_lite2": {"model.name": "efficientnet_lite2"},
    "chosen by robustness": finetune(select="robust"),
    # The recipe before, which moved its images, in seven epochs.
    "geometry, seven epochs": _SECOND,
    "geometry, seven epochs, a quarter blanked": {**_SECOND, **augment(blank=0.25)},
    "geometry, seven epochs, exchanged frames": {**_SECOND, **augment(frame=0.2)},
    "geometry, seven epochs, no class weights": {**_SECOND, **finetune(class_weights="none")},
    "geometry, seven epochs, whole network, rate by depth": {
        **finetune(unfreeze="all", layer_decay=0.8, **{"optimizer.lr": 2e-4}),
        **_SECOND,
    },
    "geometry, seven epochs, efficientnet_lite1": {**_SECOND, "model.name": "efficientnet_lite1"},
    "geometry, seven epochs, mix-up": {**_SECOND, **augment(mixup=0.2)},
    "geometry, seven epochs, label smoothing": {**_SECOND, **finetune(loss=_SMOOTHED)},
    "geometry, seven epochs, strong crops": {**_SECOND, **augment(crop_scale="[0.4, 1.0]")},
    "geometry, seven epochs, three times the rate": {**_SECOND, **finetune(**{"optimizer.lr": 3e-4})},
    "geometry, seven epochs, two blocks": {**_SECOND, **finetune(unfreeze=2)},
    "geometry, seven epochs, centre crop": {**_SECOND, "model.resize_mode": "crop"},
    "geometry, seven epochs, no averaged weights": {**_SECOND, **finetune(ema=0.0)},
    "geometry, seven epochs, constant rate": {**_SECOND, **finetune(scheduler="null", warmup=0.0)},
    "geometry, seven epochs, no tone": {**_SECOND, **augment(**_LEVEL)},
    # The recipe before that, which blanked none either.
    "geometry, seven epochs, no blanked images": _FIRST,
    "geometry, seven epochs, no blanked images, no degradation": {**_FIRST, **augment(clean=1.0)},
    "geometry, seven epochs, no blanked images, no masks": {**_FIRST, **augment(**_MASKS)},
    "geometry, seven epochs, no blanked images, trained batch norms": {**_FIRST, **finetune(batch_norm="trained")},
    "geometry, seven epochs, no blanked images, growing size": {**_FIRST, **_GROWING},
    "geometry, seven epochs, no blanked images, 288 pixels": {**_FIRST, "model.input_size": 288},
    "seven epochs, no augmentation": {**_SEVEN, **augment(**_LEVEL, clean=1.0, blank=0.0)},
}
