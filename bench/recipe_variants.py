"""The variants that `bench.recipe` compares, as settings on top of the profile `cpu`, which is the first of them."""

from typing import Any

_LEVEL = {"brightness": 0.0, "contrast": 0.0, "gamma": 0.0}
_STILL = {"crop_scale": "[1.0, 1.0]", "aspect": 0.0, "rotate": 0.0, "translate": 0.0}
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
_FIRST = {**_SEVEN, **augment(blank=0.0)}  # what the recipe was made of

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
    "no augmentation": augment(**_LEVEL, **_STILL, clean=1.0, blank=0.0),
    "no geometry": augment(**_STILL),
    "no tone": augment(**_LEVEL),
    "no degradation": augment(clean=1.0),
    "no masks": augment(**_MASKS),
    "no blanked images": augment(blank=0.0),
    "every image degraded": augment(clean=0.0),
    "two blocks": finetune(unfreeze=2),
    # Tried, and not part of it.
    "a quarter blanked": augment(blank=0.25),
    "exchanged frames": augment(frame=0.2),
    "exchanged frames, chosen by robustness": {**augment(frame=0.2), **finetune(select="robust")},
    "whole network": finetune(unfreeze="all"),
    "whole network, rate by depth": finetune(unfreeze="all", layer_decay=0.8, **{"optimizer.lr": 2e-4}),
    "three times the rate": finetune(**{"optimizer.lr": 3e-4}),
    "strong crops": augment(crop_scale="[0.4, 1.0]"),
    "mix-up": augment(mixup=0.2),
    "label smoothing": finetune(loss=_SMOOTHED),
    "growing size": _GROWING,
    "288 pixels": {"model.input_size": 288},
    "288 pixels, trained at 224": {"model.input_size": 288, **finetune(stages=_stages((1.0, 224, 1.0)))},
    "efficientnet_lite1": {"model.name": "efficientnet_lite1"},
    "efficientnet_lite2": {"model.name": "efficientnet_lite2"},
    "chosen by robustness": finetune(select="robust"),
    # The same in seven epochs, at less cost.
    "seven epochs, a quarter blanked": {**_SEVEN, **augment(blank=0.25)},
    "seven epochs, exchanged frames": {**_SEVEN, **augment(frame=0.2)},
    "seven epochs, no class weights": {**_SEVEN, **finetune(class_weights="none")},
    "seven epochs, whole network, rate by depth": {
        **finetune(unfreeze="all", layer_decay=0.8, **{"optimizer.lr": 2e-4}),
        **_SEVEN,
    },
    "seven epochs, efficientnet_lite1": {**_SEVEN, "model.name": "efficientnet_lite1"},
    "seven epochs, mix-up": {**_SEVEN, **augment(mixup=0.2)},
    "seven epochs, label smoothing": {**_SEVEN, **finetune(loss=_SMOOTHED)},
    "seven epochs, strong crops": {**_SEVEN, **augment(crop_scale="[0.4, 1.0]")},
    "seven epochs, three times the rate": {**_SEVEN, **finetune(**{"optimizer.lr": 3e-4})},
    "seven epochs, two blocks": {**_SEVEN, **finetune(unfreeze=2)},
    "seven epochs, centre crop": {**_SEVEN, "model.resize_mode": "crop"},
    "seven epochs, no averaged weights": {**_SEVEN, **finetune(ema=0.0)},
    "seven epochs, constant rate": {**_SEVEN, **finetune(scheduler="null", warmup=0.0)},
    "seven epochs, no geometry": {**_SEVEN, **augment(**_STILL)},
    "seven epochs, no tone": {**_SEVEN, **augment(**_LEVEL)},
    "seven epochs, chosen by robustness": {**_SEVEN, **finetune(select="robust")},
    "seven epochs, no blanked images": _FIRST,
    "seven epochs, no blanked images, no degradation": {**_FIRST, **augment(clean=1.0)},
    "seven epochs, no blanked images, no masks": {**_FIRST, **augment(**_MASKS)},
    "seven epochs, no augmentation": {**_FIRST, **augment(**_LEVEL, **_STILL, clean=1.0)},
    "seven epochs, no blanked images, trained batch norms": {**_FIRST, **finetune(batch_norm="trained")},
    "seven epochs, no blanked images, growing size": {**_FIRST, **_GROWING},
    "seven epochs, no blanked images, 288 pixels": {**_FIRST, "model.input_size": 288},
}
