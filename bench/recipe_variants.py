"""The variants that `bench.recipe` compares, as settings on top of the profile `cpu`, which is the first of them."""

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
    "head alone": {**finetune(unfreeze=0, epochs=1), **_rate(1e-12)},
    "two blocks": finetune(unfreeze=2),
    "centre crop": {"model.resize_mode": "crop"},
    "trained batch norms": finetune(batch_norm="trained"),
    "constant rate": finetune(scheduler="null", warmup=0.0),
    "no warm-up": finetune(warmup=0.0),
    "no weight decay": finetune(**{"optimizer.weight_decay": 0.0}),
    "neither warm-up nor weight decay": finetune(warmup=0.0, **{"optimizer.weight_decay": 0.0}),
    "no warm-up, weight decay, schedule or tone": {
        **finetune(scheduler="null", warmup=0.0, **{"optimizer.weight_decay": 0.0}),
        **augment(**_LEVEL),
    },
    "no class weights": finetune(class_weights="none"),
    "no augmentation": augment(**_LEVEL, clean=1.0, blank=0.0),
    "no tone": augment(**_LEVEL),
    "no degradation": augment(blur=0.0, noise=0.0, jpeg=100),
    "no masks": augment(border=0.0, corners=0.0),
    "neither degradation nor masks": augment(clean=1.0),
    "no blanked images": augment(blank=0.0),
}
TRIED = {  # and not part of it
    "seven epochs": finetune(epochs=7, patience=7),
    "twenty epochs": finetune(epochs=20, patience=20),
    "averaged weights": finetune(ema=0.99),
    "a third of the rate": _rate(1e-4),
    "three times the rate": _rate(9e-4),
    "every image degraded": augment(clean=0.0),
    "a quarter blanked": augment(blank=0.25),
    "exchanged frames": augment(frame=0.2),
    "rotated and shifted": augment(rotate=7.0, translate=0.03),
    "mirrored": augment(flip=True),
    "mirrored, rotated and shifted": augment(flip=True, rotate=7.0, translate=0.03),
    "strong crops": augment(crop_scale="[0.4, 1.0]"),
    "mix-up": augment(mixup=0.2),
    "label smoothing": finetune(loss=_SMOOTHED),
    "whole network": finetune(unfreeze="all", layer_decay=0.8),
    "growing size": finetune(stages=_stages((0.6, 112, 0.5), (0.2, 160, 0.75), (0.2, 224, 1.0))),
    "288 pixels": {"model.input_size": 288},
    "efficientnet_lite1": {"model.name": "efficientnet_lite1"},
    "efficientnet_lite2": {"model.name": "efficientnet_lite2"},
    "chosen by robustness": finetune(select="robust"),
}
VARIANTS: dict[str, dict[str, Any]] = {"recipe": {}, **WITHOUT, **TRIED}
