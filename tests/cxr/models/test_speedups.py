import copy

import pytest
import torch
from torch import nn

from cxr.models import efficientnet_lite, speedups
from cxr.models.speedups import FastDepthwise

LARGE, SMALL = (11, 12), (3, 4)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        *((5, 1, 2, LARGE), (7, 1, 3, LARGE), (11, 1, 5, LARGE), (3, 2, 1, LARGE), (5, 2, 2, LARGE), (5, 2, 0, LARGE)),
        *((3, 3, 0, LARGE), (3, 4, 1, LARGE), ((3, 5), (1, 2), (1, 0), LARGE)),
        *((5, 1, 2, SMALL), (7, 1, 3, SMALL), (3, 2, 1, SMALL), (5, 2, 2, SMALL), ((5, 3), (1, 2), (1, 0), SMALL)),
    ],
)
def test_gradients_of_depthwise_convolutions(kernel, stride, padding, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 2, kernel, stride, padding, groups=2).double()
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)

    def fast(*tensors):
        return speedups.DepthwiseConv2d.apply(*tensors, conv.stride, conv.padding)

    weights, plain = (conv.weight, conv.bias), conv(x)
    torch.testing.assert_close(fast(x, *weights), plain)
    upstream = torch.randn_like(plain)
    wanted = torch.autograd.grad(plain, (x, *weights), upstream)
    torch.testing.assert_close(torch.autograd.grad(fast(x, *weights), (x, *weights), upstream), wanted)
    torch.testing.assert_close(torch.autograd.grad(fast(x.detach(), *weights), weights, upstream), wanted[1:])
    torch.testing.assert_close(torch.autograd.grad(fast(x, conv.weight.detach(), None), x, upstream), wanted[:1])


def test_a_step_in_bfloat16_takes_the_fast_gradients(monkeypatch):
    taken = _counted(monkeypatch)
    torch.manual_seed(0)
    network = efficientnet_lite.build("efficientnet_lite0", 3).to(memory_format=torch.channels_last).eval()
    x, plain = torch.randn(2, 3, 64, 64), copy.deepcopy(network)
    for module, way in ((network, FastDepthwise()), (plain, torch.autograd.set_grad_enabled(True))):
        with torch.autocast("cpu", torch.bfloat16), way:
            module(x).float().square().sum().backward()
    strided, large = 4, 7  # depthwise convolutions of Lite0, and those of 5 x 5 that have no stride
    assert len(taken) == strided + large
    pairs = list(zip(network.parameters(), plain.parameters(), strict=True))
    mine, theirs = (torch.cat([parameter.grad.flatten() for parameter in one]) for one in zip(*pairs, strict=True))
    assert torch.nn.functional.cosine_similarity(mine, theirs, dim=0) > 0.999


@pytest.mark.parametrize(
    ("conv", "precision"),
    [
        (nn.Conv2d(4, 4, 5, groups=4), torch.float32),
        (nn.Conv2d(4, 4, 3, groups=4), torch.bfloat16),
        (nn.Conv2d(4, 4, 5), torch.bfloat16),
        (nn.Conv2d(4, 8, 5, groups=4), torch.bfloat16),
        (nn.Conv2d(4, 4, 5, groups=4, dilation=2), torch.bfloat16),
        (nn.Conv2d(4, 4, 5, groups=4, padding="same"), torch.bfloat16),
    ],
)
def test_other_convolutions_stay(conv, precision, monkeypatch):
    taken = _counted(monkeypatch)
    x = torch.randn(2, 4, 12, 12)
    conv, x = conv.to(precision), x.to(precision)
    with FastDepthwise():
        assert torch.equal(conv(x), copy.deepcopy(conv)(x))
    assert not taken


def test_modules_are_no_longer_in_place():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.SiLU(inplace=True))
    speedups.for_training(network)
    assert not network[1].inplace


def _counted(monkeypatch):
    taken, apply = [], speedups.DepthwiseConv2d.apply

    def counted(*given):
        taken.append(given)
        return apply(*given)

    monkeypatch.setattr(speedups.DepthwiseConv2d, "apply", counted)
    return taken
