"""What a network cannot do is refused before any training; dropout is set where the settings say."""

from pathlib import Path

import pytest
import torch
from torch import nn

from cxr.errors import CxrError
from cxr.models import bundle
from cxr.models.build import Network
from cxr.models.bundle import Bundle
from cxr.training import setup
from cxr.training.loop import Training
from tests.cxr.training.test_loop import CPU
from tests.helpers import network, settings_with, small_set


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("timm/vit_tiny_patch16_224", 64, r"Input height \(32\) doesn't match model \(64\)"),
        ("alexnet", 64, r"Output size is too small"),
    ],
)
def test_a_stage_whose_images_the_network_cannot_take(tmp_path, name, size, words):
    stages = f"[{{share: 0.5, size: 32, strength: 0.5}}, {{share: 0.5, size: {size}, strength: 1.0}}]"
    settings = settings_with({"finetune.stages": stages, "cache.views": 0}).finetune
    manifest = small_set(tmp_path, per_class=2)
    for file in manifest.files():
        file.unlink()  # nothing is read before the refusal
    told = rf"finetune\.stages: size=32: {name}.*{words}.*; the nearest size that it takes is 64$"
    with pytest.raises(CxrError, match=told):
        setup.set_up(network(name, size=size), manifest, settings, unfreeze="all", device=CPU, seed=0)


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16"])
def test_a_dropout_that_the_network_does_not_have(name, tmp_path):
    words = rf"dropout=0\.5: {name} has no dropout between its last block and its head; leave it at null"
    with pytest.raises(CxrError, match=words):
        set_up(network(name), tmp_path, dropout=0.5)


def set_up(made: Network, folder: Path, *, unfreeze: int | str = 1, **keys: object) -> Training:
    given = {f"finetune.{key}": value for key, value in keys.items()}
    settings = settings_with({**given, "cache.views": 0}).finetune
    return setup.set_up(made, small_set(folder, 4), settings, unfreeze=unfreeze, device=CPU, seed=0)


def rates(made: Network) -> dict[str, float]:
    return {name: layer.p for name, layer in made.module.named_modules() if isinstance(layer, nn.Dropout)}


@pytest.mark.parametrize(
    ("name", "before_head"),
    [
        ("efficientnet_lite0", ["classifier.0"]),
        ("alexnet", ["classifier.0", "classifier.3"]),
        ("timm/vit_tiny_patch16_224", ["head_drop"]),
        ("timm/convnextv2_atto", ["head.drop"]),
    ],
)
def test_the_dropout_is_that_before_the_head_and_no_other(name, before_head, tmp_path):
    made = network(name)
    before = rates(made)
    set_up(made, tmp_path, unfreeze="all", dropout=0.37)
    assert rates(made) == before | dict.fromkeys(before_head, 0.37)


@pytest.mark.parametrize(
    ("name", "dropout", "rate"),
    [("timm/resnet26d", 0.5, 0.5), ("timm/tf_efficientnet_lite0", 0.5, 0.5), ("timm/ghostnet_050", "null", 0.2)],
)
@pytest.mark.parametrize("unfreeze", [0, 1, "all"])
def test_a_network_of_timm_with_a_mere_rate_drops_at_it_in_training_alone(name, dropout, rate, unfreeze, tmp_path):
    made = network(name)
    bundle.save(Bundle(made), tmp_path / "before")
    made.module.get_submodule(made.head).weight.data.fill_(1.0)  # so that what is dropped is missing in the logits
    keys, x = list(made.module.state_dict()), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = made.module(x)
    training = set_up(made, tmp_path, unfreeze=unfreeze, dropout=dropout)
    assert list(rates(made).values()) == [rate]
    features = training.prefix(x)
    torch.testing.assert_close(training.suffix.eval()(features), whole)
    made.module.get_submodule(made.head).dropout.train()  # nothing else draws or learns
    first, second = training.suffix(features), training.suffix(features)
    assert not torch.equal(first, second)
    loaded = bundle.load(tmp_path / "before").network.module
    made.module.load_state_dict(loaded.state_dict())
    assert list(made.module.state_dict()) == keys


def test_stages_scale_the_dropout_before_the_head(tmp_path):
    made = network("timm/resnet26d")
    stages = "[{share: 0.5, size: 32, strength: 0.5}, {share: 0.5, size: 64, strength: 1.0}]"
    keys = {"epochs": 2, "batch_size": 4, "augment.rotate": 10}
    training = set_up(made, tmp_path, unfreeze="all", dropout=0.4, stages=stages, **keys)
    seen = []
    for epoch in (1, 2):
        next(training.train.epoch(epoch))
        seen.append(rates(made))
    assert seen == [{"fc.dropout": 0.2}, {"fc.dropout": 0.4}]
