"""Stages: sizes and strengths grow as told, in epochs that a resumed training finds again."""

import json

import pytest
import torch

from cxr.errors import CxrError
from cxr.loading.build import build_loaders
from cxr.loading.feature_cache import FeatureLoader
from cxr.loading.stages import StagedLoader, last_epochs
from cxr.models import device
from cxr.models.freezing import split_network
from cxr.settings.augment import StageSettings
from tests.helpers import network, settings_with, small_set

CPU = device.Device(torch.device("cpu"), torch.float32)
STAGES = "[{share: 0.5, size: 32, strength: 0.5}, {share: 0.5, size: 64, strength: 1.0}]"


def stages(*shares: float) -> list[StageSettings]:
    return [StageSettings(share=share, size=64, strength=1.0) for share in shares]


@pytest.mark.parametrize(
    "shares, epochs, ends",
    [((1.0,), 5, [5]), ((0.5, 0.5), 5, [2, 5]), ((0.1, 0.1, 0.8), 3, [1, 2, 3]), ((0.9, 0.05, 0.05), 4, [2, 3, 4])],
)
def test_every_stage_has_an_epoch(shares, epochs, ends):
    assert last_epochs(stages(*shares), epochs) == ends


def test_an_epoch_has_the_size_and_the_dropout_of_its_stage(tmp_path):
    manifest, made = small_set(tmp_path), network()
    keys = {"finetune.epochs": 4, "finetune.stages": STAGES, "finetune.augment.rotate": 10, "finetune.batch_size": 9}
    given = settings_with({"cache.views": 0, **keys}).finetune
    fed = build_loaders(made, manifest, given, None, prefix=torch.nn.Identity(), unfreeze="all", device=CPU, seed=0)
    assert isinstance(fed.train, StagedLoader)
    layer = torch.nn.Dropout(0.4)
    fed.train.control([layer])
    seen = []
    for epoch in (1, 2, 3, 4):
        shapes = {x.shape[-1] for x, _ in fed.train.epoch(epoch)}
        seen.append((shapes, layer.p))
    assert seen == [({32}, 0.2), ({32}, 0.2), ({64}, 0.4), ({64}, 0.4)]
    assert {x.shape[-1] for x, _ in fed.val.epoch(0)} == {64}


def test_augmentation_grows_with_the_strength_of_its_stage(tmp_path):
    keys = {"augment.rotate": 10, "augment.crop_scale": "[0.5, 1.0]", "augment.jpeg": 20, "augment.mixup": 0.4}
    keys = {f"finetune.{name}": value for name, value in {**keys, "stages": STAGES}.items()}
    given = settings_with({**keys, "cache.views": 0}).finetune
    full = given.augment
    weak = full.scaled(0.5)
    assert (weak.rotate, weak.crop_scale, weak.jpeg, weak.mixup) == (5, [0.75, 1.0], 60, 0.2)
    assert full.scaled(1.0) == full and full.scaled(0.0).off
    manifest, made = small_set(tmp_path), network()
    fed = build_loaders(made, manifest, given, None, prefix=torch.nn.Identity(), unfreeze="all", device=CPU, seed=0)
    assert [loader.augment.settings for loader in fed.train.loaders] == [weak, full]
    assert all(loader.mixing is not None for loader in fed.train.loaders)


def test_a_stage_reads_rasters_of_its_own_size_from_the_disk_cache(tmp_path):
    manifest, made = small_set(tmp_path), network()
    given = settings_with({"finetune.stages": STAGES, "cache.dir": tmp_path / "cache", "cache.views": 0})
    prefix = torch.nn.Identity()
    fed = build_loaders(made, manifest, given.finetune, given.cache, prefix=prefix, unfreeze="all", device=CPU, seed=0)
    for epoch in (1, given.finetune.epochs):
        list(fed.train.epoch(epoch))
    count = len(manifest.split("train"))
    kept = [json.loads(file.read_text())["about"] for file in (tmp_path / "cache").glob("decoded-*/facts.json")]
    assert {f"{count} images at 32 x 32", f"{count} images at 64 x 64"} <= set(kept)


@pytest.mark.parametrize(
    "changed",
    [{"stages": STAGES}, {"augment.frame": 0.1}, {"augment.mixup": 0.2}, {"augment.cutmix": 0.2}],
    ids=["stages", "frame", "mixup", "cutmix"],
)
def test_without_cached_views_what_needs_the_images_gets_them(tmp_path, changed):
    manifest, made = small_set(tmp_path), network()
    keys = {"cache.dir": tmp_path, "cache.views": 0} | {f"finetune.{name}": value for name, value in changed.items()}
    given = settings_with(keys)
    prefix, _ = split_network(made, 2)
    asked = {"prefix": prefix, "unfreeze": 2, "device": CPU, "seed": 0}
    fed = build_loaders(made, manifest, given.finetune, given.cache, **asked)
    assert fed.prefix is prefix
    assert next(iter(fed.train.epoch(1)))[0].shape[1] == 3  # images
    exact = build_loaders(made, manifest, given.train, given.cache, **asked)
    assert isinstance(exact.train, FeatureLoader)


@pytest.mark.parametrize(
    "text, words",
    [
        ("[{share: 0.5, size: 32, strength: 1.0}]", "the shares of the stages add up to 0.5, expected 1"),
        ("[{share: 1.0, size: 8, strength: 1.0}]", "size"),
    ],
)
def test_stages_that_cannot_be_are_refused(text, words):
    with pytest.raises(CxrError, match=words):
        settings_with({"finetune.stages": text})
