"""The variants that `bench.recipe` compares, as settings on top of the profile `cpu`."""

from typing import Any

_COSINE = "{_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: all}"
_AUGMENT: dict[str, Any] = {
    "crop_scale": "[0.4, 1.0]",
    "aspect": 0.2,
    "rotate": 10.0,
    "translate": 0.05,
    "brightness": 0.15,
    "contrast": 0.4,
    "gamma": 0.4,
    "blur": 2.5,
    "noise": 0.03,
    "jpeg": 15,
    "border": 0.15,
    "corners": 0.25,
}
RECIPE: dict[str, Any] = {
    "finetune.unfreeze": "all",
    "finetune.epochs": 8,
    "finetune.patience": 8,
    "finetune.batch_norm": "trained",
    "finetune.optimizer._target_": "torch.optim.AdamW",
    "finetune.optimizer.lr": 3e-4,
    "finetune.optimizer.weight_decay": 0.02,
    "finetune.scheduler": _COSINE,
    "finetune.scheduler_step": "batch",
    "finetune.warmup": 0.5,
    "finetune.ema": 0.99,
    **{f"finetune.augment.{name}": value for name, value in _AUGMENT.items()},
}


def without(*names: str, **changed: Any) -> dict[str, Any]:
    """The recipe without some settings and with others changed, by their names in `finetune`."""
    kept = {name: value for name, value in RECIPE.items() if name.removeprefix("finetune.") not in names}
    return kept | {f"finetune.{name}": value for name, value in changed.items()}


VARIANTS: dict[str, dict[str, Any]] = {
    "recipe": RECIPE,
    "head": {"finetune.epochs": 1, "finetune.unfreeze": 0, "finetune.optimizer.lr": 1e-9},
}
