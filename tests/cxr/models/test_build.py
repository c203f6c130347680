"""Any classification model of torchvision by its name alone, with a new head, or a clear refusal."""

import pytest
import torch

from cxr.errors import CxrError
from cxr.models.build import architectures
from cxr.models.freezing import blocks, split_network
from tests.helpers import network

FAMILIES = [
    "efficientnet_lite0", "resnet18", "mobilenet_v3_small", "densenet121", "convnext_tiny", "regnet_y_400mf",
    "shufflenet_v2_x0_5", "mnasnet0_5", "googlenet", "swin_t", "vit_b_16",
]  # fmt: skip


def test_many_architectures_are_known():
    assert {"efficientnet_v2_s", "efficientnet_v2_l", "resnet50", "swin_v2_t"} <= set(architectures())


@pytest.mark.parametrize("name", FAMILIES)
def test_families_get_a_head_and_can_be_cut_anywhere(name):
    made = network(name)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = made.module(x)
        assert whole.shape == (2, 3)
        for unfreeze in (0, 2, "all"):
            prefix, suffix = split_network(made, unfreeze)
            assert torch.equal(suffix.eval()(prefix.eval()(x)), whole)
    assert len(blocks(made)) >= 2


def test_the_cut_is_where_the_blocks_say():
    made = network()
    assert blocks(made) == [f"features.{i}" for i in range(9)]
    _, head = split_network(made, 0)
    assert {n for n, _ in head.named_parameters()} == {"classifier.1.weight", "classifier.1.bias"}
    _, two = split_network(made, 2)
    assert {n.rsplit(".", 2)[0].split(".")[1] for n, _ in two.named_parameters() if n.startswith("features")} == {
        "7",
        "8",
    }
    with pytest.raises(CxrError, match="has 9 blocks; allowed: 0 to 9, all"):
        split_network(made, 10)


def test_nothing_is_frozen_before_the_first_of_all_blocks():
    made = network()
    prefix, suffix = split_network(made, len(blocks(made)))
    assert isinstance(prefix, torch.nn.Identity) and suffix is made.module


def test_the_halves_are_the_network_itself():
    made = network()
    _, suffix = split_network(made, 0)
    with torch.no_grad():
        suffix.get_parameter("classifier.1.bias").fill_(7.0)
    assert made.module.get_parameter("classifier.1.bias")[0] == 7.0


def test_the_seed_alone_decides_the_head():
    torch.manual_seed(1)
    one = network(seed=3).module.get_parameter("classifier.1.weight")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    same = network(seed=3).module.get_parameter("classifier.1.weight")
    assert torch.equal(one, same)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(one, network(seed=4).module.get_parameter("classifier.1.weight"))


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(CxrError, match="efficientnet_v2_x: no such architecture; similar: efficientnet_v2"):
        network("efficientnet_v2_x")


def test_a_head_that_is_not_found_is_refused():
    with pytest.raises(CxrError, match=r"squeezenet1_1: its head was not found .* Conv2d, not a linear layer"):
        network("squeezenet1_1")


def test_weights_of_another_architecture_are_refused(tmp_path):
    torch.save(network("resnet18").module.state_dict(), tmp_path / "r18.pth")
    words = "give weights of efficientnet_lite0, or set model.name to the network they were made for"
    with pytest.raises(CxrError, match=rf"weights of another architecture .* missing.*\); {words}"):
        network("efficientnet_lite0", weights=tmp_path / "r18.pth")
    state = {k: v[:1] if k == "layer1.0.conv1.weight" else v for k, v in torch.load(tmp_path / "r18.pth").items()}
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(CxrError, match=r"of shape \(64, 64, 3, 3\), got \(1, 64, 3, 3\); give weights of resnet18, or"):
        network("resnet18", weights=tmp_path / "cut.pth")


def test_weights_from_a_file_are_loaded_whatever_their_head(tmp_path):
    given = network("resnet18", seed=1).module
    given.fc = torch.nn.Linear(512, 1000)
    torch.save(given.state_dict(), tmp_path / "w.pth")
    made = network("resnet18", seed=2, weights=tmp_path / "w.pth").module
    assert torch.equal(made.conv1.weight, given.conv1.weight)
    assert made.fc.out_features == 3


def test_the_input_spec_is_that_of_the_weights_or_of_the_setting():
    assert network("efficientnet_lite0", size=224).spec.mean == (127 / 255,) * 3
    made = network("resnet18", size=112, resize_mode="pad")
    assert (made.spec.size, made.spec.resize, made.spec.resize_mode) == (112, 128, "pad")


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("vit_b_16", 100, "vit_b_16 cannot be built at input size 100: Input shape indivisible by patch size!"),
        ("timm/vit_tiny_patch16_224", 100, r"model\.input_size=100: .* cuts patches of 16 pixels; expected a multiple"),
        ("alexnet", 32, r"model\.input_size=32: alexnet, built for 32 pixels, cannot take images of 32 x 32 \("),
    ],
)
def test_a_size_that_the_network_cannot_take_is_refused(name, size, words):
    with pytest.raises(CxrError, match=words):
        network(name, size=size)
