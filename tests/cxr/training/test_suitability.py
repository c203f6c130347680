"""What a network cannot do is known before its weights are read."""

import pytest
import torch

from cxr.errors import CxrError
from cxr.training import suitability
from tests.helpers import CLASSES, settings_with


def check(name: str, **changed: object) -> None:
    keys = {"model.name": name, "model.weights": "none", "cache.views": 0}
    given = settings_with(keys | {key.replace("__", "."): value for key, value in changed.items()})
    suitability.check(given.model, CLASSES, [given.train, given.finetune])


def stage(size: int) -> str:
    return f"[{{share: 1.0, size: {size}, strength: 1.0}}]"


@pytest.mark.parametrize(
    ("name", "size", "nearest"),
    [("timm/vit_tiny_patch16_224", 64, 224), ("alexnet", 32, 64), ("maxvit_t", 256, 224)],
)
def test_a_stage_names_its_setting_and_a_size_that_is_possible(name, size, nearest):
    told = rf"^finetune\.stages: size={size}: {name}, built for 224 .* the nearest size that it takes is {nearest}$"
    with pytest.raises(CxrError, match=told):
        check(name, finetune__stages=stage(size))
    check(name, finetune__stages=stage(nearest))


def test_a_dropout_that_no_trained_layer_has():
    told = "resnet18 has no dropout between its last block and its head; leave it at null"
    with pytest.raises(CxrError, match=rf"^train\.dropout=0\.5: {told}$"):
        check("resnet18", train__dropout=0.5)
    with pytest.raises(CxrError, match=rf"^finetune\.dropout=0\.5: {told}$"):
        check("resnet18", finetune__dropout=0.5)
    check("efficientnet_lite0", train__dropout=0.5, finetune__dropout=0.5)


def test_an_input_size_that_the_network_cannot_take():
    with pytest.raises(CxrError, match=r"^model\.input_size=32: alexnet.* cannot take images of 32 x 32"):
        check("alexnet", model__input_size=32)


def test_more_blocks_than_the_network_has():
    with pytest.raises(CxrError, match=r"^unfreeze=50: resnet18 has \d+ blocks; allowed: 0 to \d+, all$"):
        check("resnet18", finetune__unfreeze=50)


def test_an_architecture_that_reads_numbers_is_built_with_some(monkeypatch):
    def on_meta(*args, **kwargs):
        if torch.empty(0).device.type == "meta":
            raise NotImplementedError("no numbers")
        return built(*args, **kwargs)

    built = suitability.build
    monkeypatch.setattr(suitability, "build", on_meta)
    with pytest.raises(CxrError, match="size=32: alexnet"):
        check("alexnet", finetune__stages=stage(32))
