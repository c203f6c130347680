"""EfficientNet-Lite0 is the published network with the published weights."""

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet as EfficientNetLite
from torchvision.models.efficientnet import EfficientNet

from cxr.models import efficientnet_lite


@pytest.fixture(scope="module")
def ours():
    module = efficientnet_lite.build()
    module.load_state_dict(efficientnet_lite.imagenet_state())
    return module.eval()


@pytest.mark.parametrize("side", [224, 225, 190])  # stride 2 pads even and odd sides differently
def test_its_imagenet_logits_are_those_of_the_reference_implementation(ours, side):
    reference = EfficientNetLite.from_name("efficientnet-lite0", image_size=side)
    reference.load_state_dict(torch.load(efficientnet_lite.weights_file(), weights_only=True))
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference.eval()(x), atol=1e-4, rtol=0)


def test_it_is_torchvisions_class(ours):
    assert isinstance(ours, EfficientNet)
    assert not any("SqueezeExcitation" in type(m).__name__ for m in ours.modules())
    assert sum(p.numel() for p in ours.parameters()) == 4_652_008
