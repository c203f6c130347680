"""Random numbers and statistics for the own rows of a batch are those that the whole batch has."""

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

from cxr.common.share import Share
from cxr.training.whole_batch import WholeBatch

FEATURES, MAPS = (7, 5), (7, 3, 4, 4)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Dropout(0.4), FEATURES),
        (nn.Dropout(0.4), MAPS),
        (nn.Dropout2d(0.4), MAPS),
        (StochasticDepth(0.4, "row"), FEATURES),
        (StochasticDepth(0.4, "row"), MAPS),
        (DropPath(0.4), MAPS),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else f"{len(value)} axes",
)
def test_each_process_drops_what_one_process_would(layer, shape):
    x = torch.rand(shape) + 1
    if len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    torch.manual_seed(3)
    whole, after = layer(x), torch.rand(1)
    assert 0 < (whole == 0).float().mean() < 1
    parts = []
    for rank in range(3):
        share = Share(rank, 3)
        torch.manual_seed(3)
        with WholeBatch(share, 7, lambda sums: sums):
            parts.append(layer(x[share.rows(7)]))
        assert torch.equal(torch.rand(1), after), "the next draws are the same as well"
    torch.testing.assert_close(torch.cat(parts), whole)


def test_layers_that_do_not_train_are_left_alone():
    norm = nn.BatchNorm2d(3).eval()
    x = torch.rand(4, 3, 2, 2)
    with WholeBatch(Share(0, 2), 8, lambda sums: pytest.fail("nothing to exchange")):
        assert torch.equal(norm(x), nn.BatchNorm2d(3).eval()(x))
        assert torch.equal(nn.Dropout(0.5).eval()(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_norm_that_has_all_rows_is_that_of_pytorch(dtype):
    torch.manual_seed(0)
    x, outer = (torch.randn(6, 3, 4, 4) * 2 + 1).to(dtype), torch.randn(6, 3, 4, 4).to(dtype)
    found = []
    for mode in (WholeBatch(Share(0, 1), 6, lambda sums: sums), torch.enable_grad()):
        norm, own = nn.BatchNorm2d(3, momentum=0.3), x.clone().requires_grad_()
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        with mode:
            y = norm(own)
        y.backward(outer)
        found.append([y, own.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, **({} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.02}))
