import copy

import pytest
import torch
from torch import nn

from cxr.models import speedups
from cxr.models.freezing import fold_batch_norms


@pytest.mark.parametrize(("kernel", "padding", "stride"), [(3, 1, 2), (5, 2, 2), (3, 0, 3)])
def test_output_gradients_and_names_stay(kernel, padding, stride):
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(6, 6, kernel, stride, padding, groups=6), nn.BatchNorm2d(6), nn.SiLU(inplace=True), nn.Conv2d(6, 2, 1)
    ).double()
    changed = copy.deepcopy(plain)
    speedups.for_training(changed, torch.device("cpu"))
    assert type(changed[0]) is not nn.Conv2d, "the convolution was not changed, so the test shows nothing"
    assert isinstance(fold_batch_norms(changed)[1], nn.Identity)
    x = torch.randn(3, 6, 13, 14, dtype=torch.float64)
    for network in (plain, changed):
        network(x).square().sum().backward()
    torch.testing.assert_close(changed(x), plain(x))
    for (name, mine), (other, theirs) in zip(changed.named_parameters(), plain.named_parameters(), strict=True):
        assert name == other
        torch.testing.assert_close(mine.grad, theirs.grad)
