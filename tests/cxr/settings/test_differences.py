"""Differences between settings name a few of them, in one short line."""

from cxr.settings import differences
from cxr.settings.differences import flat


def test_a_class_and_its_arguments_come_and_go():
    then = flat({"train": {"epochs": 3, "scheduler": None, "compile": "auto"}})
    now = flat({"train": {"epochs": 5, "scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1}}})
    assert differences.told(then, now) == (
        "train.epochs was 3, now 5; train.scheduler._target_ was null, now torch.optim.lr_scheduler.StepLR; "
        "train.scheduler.step_size was null, now 1; and 1 more"
    )
    assert not differences.told(now, now)


def test_long_values_are_shortened():
    stages = [{"share": 0.5, "size": size, "strength": 1.0} for size in (128, 224)]
    told = differences.told({"finetune.stages": []}, {"finetune.stages": stages})
    assert told.startswith('finetune.stages was [], now [{"share": 0.5, "size": 128, "strength": 1.0}, ')
    assert told.endswith("…") and len(told) < 100


def test_of_two_lists_of_stages_the_value_that_differs_is_told():
    then = flat({"finetune": {"stages": [{"share": 0.5, "size": size, "strength": 1.0} for size in (128, 224)]}})
    now = flat({"finetune": {"stages": [{"share": 0.5, "size": size, "strength": 1.0} for size in (128, 192)]}})
    assert differences.told(then, now) == "finetune.stages.1.size was 224, now 192"
    shorter = {"finetune.stages": then["finetune.stages"][:1]}
    assert differences.told(then, shorter).startswith("finetune.stages.1.share was 0.5, now null; ")
    assert not differences.told(then, then)
