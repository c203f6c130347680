"""Training from stored features is training from the images, only quicker."""

import copy

import numpy as np
import pytest
import torch

from cxr.errors import CxrError
from cxr.loading import feature_cache, rasters
from cxr.loading.build import build_loaders
from cxr.loading.disk_cache import DiskCache
from cxr.loading.feature_cache import FeatureLoader
from cxr.loading.rasters import ImageDataset
from cxr.models.device import Device
from cxr.models.freezing import fold_batch_norms, run_frozen, split_network
from cxr.training import setup
from cxr.training.loop import Callbacks, train
from tests.cxr.training.test_loop import CPU, same, weights
from tests.helpers import network, settings_with, small_set

BF16 = Device(torch.device("cpu"), torch.bfloat16)


@pytest.fixture(scope="module", autouse=True)
def _deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return small_set(tmp_path_factory.mktemp("set"))


def configured(tmp_path, **changed):
    keys = {"train.epochs": 3, "train.batch_size": 8, "train.patience": 10, "train.optimizer.lr": 0.003}
    keys |= {"cache.dir": tmp_path / "stores", **changed}
    return settings_with(keys)


def fit(
    manifest, settings, *, unfreeze, device=CPU, cached=True, name="efficientnet_lite0", resume=None, callbacks=None
):
    made = network(name)
    cache = settings.cache if cached else None
    given = {"unfreeze": unfreeze, "device": device, "seed": 1, "cache": cache, "callbacks": callbacks}
    return made, train(setup.set_up(made, manifest, settings.train, **given), resume)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
@pytest.mark.parametrize("unfreeze", [0, 2])
def test_one_view_without_augmentation_gives_the_very_same_weights(manifest, tmp_path, unfreeze, name):
    settings = configured(tmp_path, **{"cache.views": 1})
    plain, plain_result = fit(manifest, settings, unfreeze=unfreeze, cached=False, name=name)
    stored, stored_result = fit(manifest, settings, unfreeze=unfreeze, name=name)
    again, _ = fit(manifest, settings, unfreeze=unfreeze, name=name)
    assert same(weights(stored), weights(plain))
    assert same(weights(again), weights(plain))
    assert [e.val_loss for e in stored_result.history] == [e.val_loss for e in plain_result.history]
    kinds = sorted(folder.name.split("-")[0] for folder, _, _ in DiskCache(settings.cache.dir, 1).listed())
    assert kinds == ["decoded", "decoded", "features", "features"]


def test_features_of_changed_images_choose_as_the_images_do(manifest, tmp_path):
    settings = configured(tmp_path, **{"train.select": "robust", "train.select_images": 5})
    _, plain = fit(manifest, settings, unfreeze=0, cached=False)
    _, stored = fit(manifest, settings, unfreeze=0)
    assert [e.val_metric for e in stored.history] == [e.val_metric for e in plain.history]
    assert any(e.val_metric != e.val_metric_clean for e in plain.history)
    kinds = [folder.name.split("-")[0] for folder, _, _ in DiskCache(settings.cache.dir, 1).listed()]
    assert kinds.count("features") == 2 + 8 and kinds.count("decoded") == 2


def test_the_decoded_store_has_the_pixels_of_the_files(manifest, tmp_path):
    spec = network().spec
    stored = rasters.open_rasters(manifest, spec, DiskCache(tmp_path, 1))
    assert isinstance(stored, rasters.CachedDataset)
    index = np.array([5, 0, 17])
    assert (stored.rasters(index) == ImageDataset(manifest, spec).rasters(index)).all()


def test_training_on_all_blocks_uses_the_decoded_store_alone(manifest, tmp_path):
    settings = configured(tmp_path, **{"train.epochs": 1})
    plain, _ = fit(manifest, settings, unfreeze="all", cached=False)
    stored, _ = fit(manifest, settings, unfreeze="all")
    assert same(weights(stored), weights(plain))
    assert {f.name.split("-")[0] for f, _, _ in DiskCache(settings.cache.dir, 1).listed()} == {"decoded"}


def fed(manifest, settings, *, unfreeze=0, device=CPU, seed=1, made=None):
    made = made or network()
    prefix, _ = split_network(made, unfreeze)
    asked = {"prefix": prefix.eval(), "unfreeze": unfreeze, "device": device, "seed": seed}
    return build_loaders(made, manifest, settings.train, settings.cache, **asked)


def test_every_epoch_draws_one_of_the_views_of_every_image(manifest, tmp_path):
    settings = configured(tmp_path, **{"train.augment.rotate": 20, "cache.views": 3})
    train = fed(manifest, settings).train
    assert isinstance(train, FeatureLoader)
    count = len(train.labels)
    assert len(train.array) == 3 * count
    every = train.array.take(np.arange(3 * count)).reshape(3, count, -1)
    assert len(np.unique(every[:, 0], axis=0)) == 3  # the views differ
    seen = set()
    for epoch in range(1, 9):
        rows = torch.cat([x for x, _ in train.epoch(epoch)]).numpy()
        place = [np.argwhere((every == row).all(-1))[0] for row in rows]
        assert sorted(int(image) for _, image in place) == list(range(count))
        seen |= {(int(view), int(image)) for view, image in place}
    assert len(seen) > 2.5 * count
    labels = torch.cat([y for _, y in train.epoch(2)])
    assert sorted(labels.tolist()) == sorted(train.labels.tolist())


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"train.augment.rotate": 10}, {"train.augment.rotate": 20, "cache.views": 2}, {"seed": 2}, {"unfreeze": 1},
        {"precision": "bfloat16"}, {"weights": 1}, {"rows": 1}, {"order": -1}, {"model.input_size": 32},
    ],
    ids=str,
)  # fmt: skip
def test_a_key_that_differs_in_anything_is_another_store(manifest, tmp_path, changed):
    def names(**changed):
        extra = {k: v for k, v in changed.items() if k.startswith(("train", "cache"))}
        settings = configured(tmp_path, **{"train.augment.rotate": 20, "cache.views": 3, **extra})
        made = network(size=changed.get("model.input_size", 64))
        if "weights" in changed:
            with torch.no_grad():
                made.module.features[0][0].weight[0, 0, 0, 0] += 1e-6
        device = BF16 if "precision" in changed else CPU
        rows = manifest.rows.iloc[changed.get("rows") :: changed.get("order")]
        part = type(manifest)(rows, manifest.root, manifest.classes)
        fed(part, settings, unfreeze=changed.get("unfreeze", 0), seed=changed.get("seed", 1), device=device, made=made)
        return {folder.name for folder, _, _ in DiskCache(settings.cache.dir, 1).listed() if "features" in folder.name}

    before = names()
    assert names() == before
    assert len(names(**changed)) > len(before)


def test_features_do_not_depend_on_the_batch_size(manifest, tmp_path):
    made, every = network(), []
    for size in (8, 5):
        changed = {"train.augment.rotate": 20, "cache.views": 2, "train.batch_size": size}
        settings = configured(tmp_path / str(size), **changed)
        array = fed(manifest, settings, made=made).train.array
        names = {folder.name for folder, _, _ in DiskCache(settings.cache.dir, 1).listed()}
        every.append((array.take(np.arange(len(array))), names))
    assert (every[0][0] == every[1][0]).all()
    assert every[0][1] == every[1][1], "another batch size would not find them"


@pytest.mark.slow
def test_features_beyond_max_gb_are_reported_and_not_cached(manifest, tmp_path, caplog):
    settings = configured(tmp_path, **{"cache.max_gb": 0.00005})
    plain, _ = fit(manifest, settings, unfreeze=0, cached=False)
    without, _ = fit(manifest, settings, unfreeze=0)
    assert "training without them" in caplog.text
    assert same(weights(without), weights(plain))


def test_a_training_on_cached_views_is_not_continued_without_them(manifest, tmp_path):
    """Drawn anew in every epoch, the views would be others."""
    keys = {"cache.views": 2, "train.augment.rotate": 10, "train.epochs": 1}
    states = []
    fit(manifest, configured(tmp_path, **keys), unfreeze=0, callbacks=Callbacks(on_checkpoint=states.append))
    with pytest.raises(CxrError, match="another training: views was 2, now 0; train from scratch"):
        fit(manifest, configured(tmp_path, **keys, **{"cache.max_gb": 0.00005}), unfreeze=0, resume=states[0])


@pytest.mark.slow
def test_bfloat16_features_are_kept_bit_for_bit(manifest, tmp_path):
    settings = configured(tmp_path)
    made = network()
    prefix, _ = split_network(made, 2)
    plain = build_loaders(made, manifest, settings.train, None, prefix=prefix.eval(), unfreeze=2, device=BF16, seed=1)
    stored = fed(manifest, settings, unfreeze=2, device=BF16, made=made)
    x, _ = next(plain.val.epoch(0))
    z, _ = next(stored.val.epoch(0))
    assert z.dtype == torch.bfloat16
    assert z.is_contiguous(memory_format=torch.channels_last)
    with BF16.autocast():
        assert torch.equal(z, run_frozen(prefix, x))


@pytest.mark.slow
def test_an_image_has_the_same_features_in_any_batch():
    made = network()
    prefix, _ = split_network(made, 0)
    x = torch.randn(33, 3, 64, 64).to(memory_format=torch.channels_last)
    whole = run_frozen(prefix.eval(), x)
    for size in (1, 3, 8, 17, 32):
        parts = [run_frozen(prefix, x[i : i + size]) for i in range(0, 33, size)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "efficientnet_v2_s"])
def test_folding_changes_next_to_nothing_and_leaves_the_network_alone(name):
    made = network(name)
    for module in made.module.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    before = weights(made)
    prefix, _ = split_network(made, 0)
    x = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # In double precision: what is left is rounding, which deep networks with random statistics blow up.
    plain, quick = (
        run_frozen(copy.deepcopy(prefix).double().eval(), x),
        run_frozen(fold_batch_norms(copy.deepcopy(prefix).double()), x),
    )
    torch.testing.assert_close(quick, plain, rtol=1e-8, atol=1e-8 * float(plain.abs().max()))
    assert same(weights(made), before)


def test_training_does_not_change_the_cached_features(manifest, tmp_path):
    """Layers that work in place (dropout before the head) must not write through to the store."""
    settings = configured(tmp_path)
    train = fed(manifest, settings).train
    before = train.array.take(np.arange(len(train.array)))
    for x, _ in train.epoch(1):
        x.zero_()
    assert (train.array.take(np.arange(len(train.array))) == before).all()
    assert feature_cache.digest(torch.nn.Linear(2, 2)) != feature_cache.digest(torch.nn.Linear(2, 2))
