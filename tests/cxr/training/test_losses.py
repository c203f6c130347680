"""The focal loss is the cross-entropy at gamma 0, and less of it for what is right already."""

import pytest
import torch
from torch.nn import functional

from cxr.settings import instantiate
from cxr.training.losses import FocalLoss
from tests.helpers import settings_with

LOGITS = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) * 3
LABELS = torch.arange(20) % 3
SHARES = torch.rand(20, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
WEIGHT = torch.tensor([0.5, 1.0, 2.0])


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [LABELS, SHARES], ids=["classes", "probabilities"])
def test_without_gamma_it_is_the_cross_entropy(weight, smoothing, labels):
    ours = FocalLoss(0.0, weight, smoothing)(LOGITS, labels)
    theirs = functional.cross_entropy(LOGITS, labels, weight, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)


def test_what_is_right_already_counts_less():
    sure, unsure = torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[0.1, 0.0, 0.0]])
    label = torch.tensor([0])
    for logits, least, most in ((sure, 0.0, 0.001), (unsure, 0.3, 0.6)):
        share = FocalLoss(2.0)(logits, label) / functional.cross_entropy(logits, label)
        assert least <= float(share) <= most


def test_the_slope_is_a_number_where_the_answer_is_certain():
    logits = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
    FocalLoss(0.5)(logits, torch.tensor([0])).backward()
    assert logits.grad.isfinite().all()


def test_it_is_chosen_by_its_name():
    settings = settings_with({"train.loss": "{_target_: cxr.training.losses.FocalLoss, gamma: 1.5}"}).train
    made = instantiate.loss(settings.loss, WEIGHT)
    assert isinstance(made, FocalLoss) and made.gamma == 1.5 and torch.equal(made.weight, WEIGHT)
