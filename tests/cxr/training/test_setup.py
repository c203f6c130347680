"""What a network cannot do is refused before any training."""

import pytest

from cxr.errors import CxrError
from cxr.training import setup
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


def test_a_dropout_that_the_network_does_not_have(tmp_path):
    settings = settings_with({"finetune.dropout": 0.5}).finetune
    with pytest.raises(CxrError, match=r"dropout=0\.5: resnet18 has no dropout; leave it at null"):
        setup.set_up(network("resnet18"), small_set(tmp_path, 2), settings, unfreeze=1, device=CPU, seed=0)
