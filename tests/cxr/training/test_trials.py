"""Classes that settings name are tried on a few numbers; what cannot work is refused in one line."""

import pytest
import torch

from cxr.errors import CxrError
from cxr.models.device import Device
from cxr.training import setup, trials
from tests.helpers import network, settings_with

CPU = Device(torch.device("cpu"), torch.float32)
BLANKED = {"cache.views": 0, "train.augment.blank": 0.1}
MARGIN = "{_target_: torch.nn.MultiMarginLoss}"

REFUSED = [
    ({"loss": "{_target_: torch.nn.CrossEntropyLoss, reduction: none}"}, "leave its argument reduction at mean"),
    ({"loss": "{_target_: torch.nn.CrossEntropyLoss, reduction: sum}"}, "leave its argument reduction at mean"),
    ({"loss": "{_target_: torch.nn.BCEWithLogitsLoss}", "class_weights": "none"}, "labels that are classes"),
    ({"loss": "{_target_: torch.nn.TripletMarginLoss}", "class_weights": "none"}, "labels that are classes"),
    ({"loss": "{_target_: cxr.training.losses.FocalLoss, gamma: -1}"}, "expected a gamma of at least 0, got -1"),
    ({"optimizer": "{_target_: torch.optim.LBFGS}"}, "cannot take a step from dense gradients alone"),
    ({"optimizer": "{_target_: torch.optim.SparseAdam}"}, "cannot take a step from dense gradients alone"),
    ({"scheduler": "{_target_: torch.optim.lr_scheduler.StepLR}"}, "StepLR cannot be built with"),
    ({"metric": "{_target_: torchmetrics.classification.MultilabelF1Score, num_labels: 3}"}, "not give one number"),
    (
        {"metric": "{_target_: torchmetrics.classification.MulticlassF1Score, average: none}"},
        "does not give one number",
    ),
]


@pytest.mark.parametrize(
    ("changed", "words"), REFUSED, ids=[str(next(iter(changed.values()))) for changed, _ in REFUSED]
)
def test_what_cannot_work_is_named_with_its_setting(changed, words):
    settings = settings_with({f"train.{key}": value for key, value in changed.items()}).train
    with pytest.raises(CxrError, match=words) as told:
        trials.check(settings, 3)
    assert "\n" not in str(told.value)


def test_a_loss_of_classes_alone_is_refused_only_where_labels_are_blended():
    keys = {"train.loss": MARGIN, "train.class_weights": "none"}
    trials.check(settings_with(keys).train, 3)
    with pytest.raises(CxrError, match=r"train\.loss: .* labels that are probabilities .* or no augment\.blank"):
        trials.check(settings_with(keys | BLANKED).train, 3)


@pytest.mark.parametrize("profile", ["sample", "quick", "cpu", "gpu", "paper"])
def test_every_profile_passes(profile):
    settings = settings_with({}, profile)
    for section in (settings.train, settings.finetune):
        trials.check(section, 2)
        trials.check(section, 3)


def test_they_come_before_any_image_is_read(manifest, monkeypatch):
    monkeypatch.setattr(setup, "build_loaders", lambda *_, **__: pytest.fail("images were read first"))
    settings = settings_with({"train.loss": MARGIN, "train.class_weights": "none"} | BLANKED).train
    with pytest.raises(CxrError, match=r"train\.loss"):
        setup.set_up(network(), manifest, settings, unfreeze=0, device=CPU, seed=1)
