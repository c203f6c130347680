"""Settings of a training that do not go together are refused when they are read, in one line that says what to set."""

import pytest

from cxr.errors import CxrError
from tests.helpers import settings_with

STAGES = "[{share: 1.0, size: 64, strength: 1.0}]"
COSINE = "{_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: all}"
PLATEAU = "{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau}"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"warmup": 0.5, "scheduler": COSINE}, "warmup=0.5 goes batch by batch, the scheduler epoch by epoch; set "),
        ({"epochs": 4, "warmup": 4.0}, "warmup=4 leaves no epoch of 4; set a smaller one"),
        ({"scheduler": PLATEAU, "scheduler_step": "batch"}, "loss of an epoch; set scheduler_step=epoch"),
        (
            {"layer_decay": 0.5, "optimizer.lr": "null"},
            "needs a learning rate; set lr of the optimizer",
        ),
    ],
    ids=["warm-up by epoch", "warm-up alone", "plateau by batch", "no rate"],
)
@pytest.mark.parametrize("section", ["train", "finetune"])
def test_learning_rates_that_do_not_go_together(section, changed, words):
    with pytest.raises(CxrError) as error:
        settings_with({f"{section}.{name}": value for name, value in changed.items()})
    assert str(error.value).startswith(f"setting {section}: ") and words in str(error.value)


@pytest.mark.parametrize("section", ["train", "finetune"])
def test_classes_are_balanced_once(section):
    with pytest.raises(CxrError) as error:
        settings_with({f"{section}.sampler": "balanced"})
    told = f"setting {section}: sampler=balanced already makes classes equally frequent; set class_weights=none"
    assert str(error.value) == told
    settings_with({f"{section}.sampler": "balanced", f"{section}.class_weights": "none"})


@pytest.mark.parametrize(
    "changed",
    [{"stages": STAGES}, {"augment.frame": 0.1}, {"augment.blank": 0.1}, {"augment.mixup": 0.2}],
    ids=["stages", "frame", "blank", "mixup"],
)
def test_what_needs_the_images_does_not_go_with_cached_features(changed):
    name = next(iter(changed))
    with pytest.raises(CxrError) as error:
        settings_with({f"finetune.{name}": changed[name]})
    told = f"finetune.{name}: not possible with cached features; set finetune.unfreeze=all or cache.views=0"
    assert str(error.value) == told
    with pytest.raises(CxrError, match=rf"^train.{name}: not possible with cached features; set cache.views=0$"):
        settings_with({f"train.{name}": changed[name]})
    for way_out in ({"cache.views": 0}, {"finetune.unfreeze": "all"}, {"cache.features": "false"}):
        settings_with({f"finetune.{name}": changed[name], **way_out})
