"""EfficientNet-Lite0 to Lite2 are the published networks with the published weights."""

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet as EfficientNetLite
from torchvision.models.efficientnet import EfficientNet

from cxr.models import efficientnet_lite


def ours(name: str) -> EfficientNet:
    module = efficientnet_lite.build(name)
    module.load_state_dict(efficientnet_lite.imagenet_state(name))
    return module.eval()


# Stride 2 pads even and odd sides differently.
@pytest.mark.parametrize(("number", "side"), [(0, 224), (0, 225), (0, 190), (1, 240), (1, 97), (2, 260), (2, 97)])
def test_their_imagenet_logits_are_those_of_the_reference_implementation(number, side):
    name = f"efficientnet_lite{number}"
    reference = EfficientNetLite.from_name(f"efficientnet-lite{number}", image_size=side)
    reference.load_state_dict(torch.load(efficientnet_lite.weights_file(name), weights_only=True))
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(name)(x), reference.eval()(x), atol=1e-4, rtol=0)


# Parameters and input as the authors give them; parameters of the whole network, in millions.
@pytest.mark.parametrize(
    ("name", "parameters", "size", "resize"),
    [
        ("efficientnet_lite0", 4_652_008, 224, 256),
        ("efficientnet_lite1", 5_416_680, 240, 272),
        ("efficientnet_lite2", 6_092_072, 260, 292),
    ],
)
def test_they_are_of_torchvisions_class(name, parameters, size, resize):
    module = efficientnet_lite.build(name)
    assert isinstance(module, EfficientNet)
    assert not any("SqueezeExcitation" in type(m).__name__ for m in module.modules())
    assert sum(p.numel() for p in module.parameters()) == parameters
    spec = efficientnet_lite.input_spec(name)
    assert (spec.size, spec.resize, spec.interpolation) == (size, resize, "bicubic")
