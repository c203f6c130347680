"""Settings of a training that do not go together: refused with all other settings, before any data is read."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxr.settings.schema import CacheSettings, TrainingSettings


def cached_views(settings: "TrainingSettings", cache: "CacheSettings | None", unfreeze: int | str) -> int:
    """Cached views of each training image; 0 where every epoch draws its own."""
    if cache is None or not cache.features or unfreeze == "all":
        return 0
    if not settings.augment.off:
        return cache.views
    return 0 if settings.stages and not cache.views else 1


def check_images(settings: "TrainingSettings", cache: "CacheSettings | None", unfreeze: int | str) -> None:
    """Raise `ValueError` for what needs the images themselves in every epoch, where their features are cached."""
    if not cached_views(settings, cache, unfreeze):
        return
    asked = {
        "stages": settings.stages,
        "augment.frame": settings.augment.frame,
        "augment.blank": settings.augment.blank,
        "augment.mixup": settings.augment.mixup,
        "augment.cutmix": settings.augment.cutmix,
    }
    if given := [f"{settings.section}.{name}" for name, value in asked.items() if value]:
        all_blocks = f"{settings.section}.unfreeze=all or " if settings.section == "finetune" else ""
        raise ValueError(f"{' and '.join(given)}: not possible with cached features; set {all_blocks}cache.views=0")


def check_classes(settings: "TrainingSettings") -> None:
    """Raise `ValueError` if rare classes would count twice over: drawn more often, and weighted as if they were not."""
    if settings.sampler == settings.class_weights == "balanced":
        raise ValueError("sampler=balanced already makes classes equally frequent; set class_weights=none")


def check_rates(settings: "TrainingSettings") -> None:
    """Raise `ValueError` for learning rates that cannot be as they are told."""
    scheduler, by_epoch = settings.scheduler, settings.scheduler_step == "epoch"
    if settings.warmup >= settings.epochs:
        raise ValueError(f"warmup={settings.warmup:g} leaves no epoch of {settings.epochs}; set a smaller one")
    if scheduler is not None and by_epoch and settings.warmup:
        raise ValueError(
            f"warmup={settings.warmup:g} goes batch by batch, the scheduler epoch by epoch; set scheduler_step=batch"
        )
    if scheduler is not None and not by_epoch and scheduler.target.endswith(".ReduceLROnPlateau"):
        raise ValueError("ReduceLROnPlateau reads the validation loss of an epoch; set scheduler_step=epoch")
    if settings.layer_decay < 1 and not settings.optimizer.arguments.get("lr"):
        raise ValueError(f"layer_decay={settings.layer_decay:g} needs a learning rate; set lr of the optimizer")
