"""Classification models of timm by their names, with what comes after: cutting, bundles, cached features."""

import ast
import logging
import socket
import sys
import time

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
from timm.layers import BatchNormAct2d, StdConv2d
from torch import nn

from cxr.errors import CxrError
from cxr.models import bundle, timm_models, weights
from cxr.models.build import Network
from cxr.models.bundle import Bundle
from cxr.models.freezing import blocks, depths, fold_batch_norms, split_network
from cxr.training import setup
from cxr.training.loop import train
from tests.cxr.training.test_loop import CPU
from tests.helpers import ROOT, network, settings_with, small_set

# Convolutional networks: of today, of yesterday with a deep stem, with a wide layer before the head; and a transformer.
NAMES = ["timm/convnextv2_atto", "timm/resnet26d", "timm/mobilenetv3_small_100", "timm/vit_tiny_patch16_224"]
SIZE = 32


@pytest.mark.parametrize("name", NAMES)
def test_they_get_a_head_can_be_cut_anywhere_and_come_back_from_a_bundle(name, tmp_path):
    made = network(name, size=SIZE)
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    names = blocks(made)
    with torch.no_grad():
        whole = made.module(x)
        assert whole.shape == (2, 3)
        for unfreeze in (0, 2, len(names), "all"):
            prefix, suffix = split_network(made, unfreeze)
            assert torch.equal(suffix.eval()(prefix.eval()(x)), whole)
        bundle.save(Bundle(made), tmp_path)
        loaded = bundle.load(tmp_path).network
        assert torch.equal(loaded.module(x), whole)
    assert (loaded.name, loaded.spec, loaded.head) == (name, made.spec, made.head)
    _, head = split_network(made, 0)
    assert {n for n, _ in head.named_parameters()} == {f"{made.head}.weight", f"{made.head}.bias"}


@pytest.mark.parametrize("name", NAMES)
def test_training_on_cached_features_is_training_on_images(name, tmp_path):
    manifest = small_set(tmp_path, per_class=4)
    keys = {"train.epochs": 1, "train.batch_size": 4, "cache.dir": tmp_path / "stores", "cache.views": 1}
    settings = settings_with(keys)
    found = []
    for cache in (None, settings.cache):
        made = network(name, size=SIZE)
        result = train(setup.set_up(made, manifest, settings.train, unfreeze=1, device=CPU, seed=1, cache=cache))
        found.append([(record.train_loss, record.val_loss) for record in result.history])
        assert result.history[0].val_loss != result.start.val_loss, "nothing was learnt, so the test shows nothing"
    assert found[0] == found[1]


def test_the_input_is_that_of_the_data_configuration_of_the_weights():
    spec = timm_models.input_spec("timm/vit_tiny_patch16_224")
    assert (spec.size, spec.resize, spec.interpolation) == (224, 248, "bicubic")  # 224 / 0.9
    assert spec.mean == spec.std == (0.5, 0.5, 0.5)
    assert timm_models.input_spec("timm/vit_small_patch14_dinov2.lvd142m").size == 518
    assert timm_models.input_spec("timm/resnet26d").std == (0.229, 0.224, 0.225)
    spec = timm_models.input_spec("timm/convnextv2_atto")  # trained on 224 pixels, tested on 288
    assert (spec.size, spec.resize) == (288, 303)  # 288 / 0.95


@pytest.mark.parametrize("name", [*NAMES, "timm/swin_tiny_patch4_window7_224"])
def test_blocks_are_the_groups_that_timm_gives_its_layers(name):
    with torch.device("meta"):
        module = timm.create_model(name.removeprefix("timm/"), num_classes=3)
    head = next(inner for inner, layer in module.named_modules() if layer is module.get_classifier())
    made = Network(name, ("a", "b", "c"), timm_models.input_spec(name), module, head)
    groups = timm.models.group_parameters(module, module.group_matcher(coarse=True), reverse=True)
    depth = depths(made)
    pairs = {(groups[inner], depth[inner]) for inner in depth if inner.startswith(tuple(f"{b}." for b in blocks(made)))}
    assert len(pairs) == len({group for group, _ in pairs}) == len({at for _, at in pairs}) == len(blocks(made))


def test_what_lies_outside_all_blocks_counts_with_the_block_before_it():
    made = network("timm/vit_tiny_patch16_224", size=SIZE)
    depth, count = depths(made), len(blocks(made))
    assert blocks(made) == ["patch_embed", *(f"blocks.{i}" for i in range(12))]
    assert depth["cls_token"] == depth["pos_embed"] == depth["patch_embed.proj.weight"] == count
    assert depth["norm.weight"] == depth["blocks.11.attn.qkv.weight"] == 1
    assert depth["head.weight"] == depth["head.bias"] == 0


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "mobilenetv2_050", "mobilenetv4_conv_small", "ghostnet_100"])
def test_stages_are_blocks_also_beside_a_wide_layer_after_them(name):
    made = network(f"timm/{name}", size=SIZE)
    names = blocks(made)
    stages = len(made.module.blocks)
    assert names == ["conv_stem", *(f"blocks.{i}" for i in range(stages)), "conv_head"]
    _, suffix = split_network(made, 2)
    backbone = sum(p.numel() for n, p in made.module.named_parameters() if not n.startswith(made.head))
    trained = sum(p.numel() for n, p in suffix.named_parameters() if not n.startswith(made.head))
    assert trained < 0.55 * backbone
    last = {n.split(".")[1] for n, _ in suffix.named_parameters() if n.startswith("blocks.")}
    assert last == {str(stages - 1)}


def test_a_stem_of_layers_is_one_block():
    names = blocks(network("timm/efficientvit_m0", size=64))
    assert names == ["patch_embed", "stages.0", "stages.1", "stages.2"]


def test_layers_that_only_look_like_a_batch_norm_and_a_convolution_are_not_folded():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), BatchNormAct2d(4), StdConv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()
    for layer in (layers[1], layers[3]):
        nn.init.normal_(layer.weight), layer.running_mean.normal_(), layer.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(fold_batch_norms(layers)(x), layers(x))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file_are_loaded_whatever_their_head(suffix, tmp_path):
    given = timm.create_model("resnet26d", num_classes=7)
    file = tmp_path / f"w{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(given.state_dict(), file)
    made = network("timm/resnet26d", weights=file).module
    assert torch.equal(made.layer4[1].conv2.weight, given.layer4[1].conv2.weight)
    assert made.fc.out_features == 3
    with pytest.raises(
        CxrError, match=r"convnextv2_atto, model\.weights=.*: weights of another architecture .*; give weights of timm/"
    ):
        network("timm/convnextv2_atto", weights=file)


def test_a_damaged_file_of_safetensors_is_refused(tmp_path):
    file = tmp_path / "w.safetensors"
    for content in (b"", b"\x80\x04.", safetensors.torch.save({"a": torch.ones(9)})[:-4]):
        file.write_bytes(content)
        with pytest.raises(CxrError, match="is damaged or not a file of weights"):
            weights.state("resnet18", str(file))


def test_weights_that_cannot_be_downloaded_name_their_address(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    words = r"huggingface\.co/timm/resnet26d\.bt_in1k could not be downloaded .*; give -P model\.weights=FILE"
    with pytest.raises(CxrError, match=words):
        network("timm/resnet26d", weights="imagenet")
    with pytest.raises(CxrError, match=r"timm has no weights for darknet17; give -P model\.weights=FILE"):
        network("timm/darknet17", weights="imagenet")


def test_a_hub_that_cannot_be_reached_is_one_line_with_its_cause(monkeypatch, tmp_path, caplog):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    path = "/{repo_id}/resolve/{revision}/{filename}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    client = logging.getLogger("huggingface_hub")
    monkeypatch.setattr(client, "handlers", [caplog.handler])
    level = client.level
    with pytest.raises(CxrError, match=r"resnet26d\.bt_in1k could not be downloaded \(.*Connection refused\); give -P"):
        network("timm/resnet26d", weights="imagenet")
    assert waits, "the connection was tried again, so there was something to warn of"
    assert not [record for record in caplog.records if record.name.startswith("huggingface_hub")]
    assert client.level == level


def test_pretrained_networks_are_tried_without_memory_and_made_once(monkeypatch):
    devices = []

    def given(*args, pretrained=False, create=timm.create_model, **kwargs):
        module = create(*args, **kwargs)
        devices.append(next(module.parameters()).device.type)
        return module

    monkeypatch.setattr(timm, "create_model", given)
    made = network("timm/resnet26d", weights="imagenet")
    assert devices == ["meta", "cpu"]
    assert {parameter.device.type for parameter in made.module.parameters()} == {"cpu"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/convnextv3_atto", "timm has no such architecture; similar: timm/convnextv2_atto"),
        ("timm/resnet26d.mine", r"timm has no such weights; its weights for resnet26d: timm/resnet26d\.bt_in1k"),
        ("timm/deit_tiny_distilled_patch16_224", r"its head is not one layer \(a tuple\)"),
    ],
)
def test_what_timm_lacks_or_we_cannot_use_is_refused(name, words):
    with pytest.raises(CxrError, match=words):
        network(name, size=224)


@pytest.mark.parametrize(
    "name",
    ["hf-hub:timm/resnet26d", "timm/hf-hub:a/b", "timm/../resnet26d", "timm/", "timm/a.b.c", "local-dir:/a", "a/b"],
)
def test_names_that_lead_out_of_timm_are_refused(name):
    with pytest.raises(CxrError, match=r"model\.name"):
        settings_with({"model.name": name})


def test_without_timm_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(CxrError, match=r"timm/resnet26d needs timm: pip install -r requirements-timm\.txt"):
        network("timm/resnet26d")


def test_timm_is_imported_only_if_it_is_asked_for():
    for file in [*(ROOT / "cxr").rglob("*.py"), *(ROOT / "steps").rglob("*.py")]:
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert "timm" not in {name.split(".")[0] for name in names}, file
