"""Cleaning removes what the project keeps in its cache, and nothing else."""

import numpy as np

from cxr.datasets import sources
from cxr.loading.disk_cache import DiskCache, Plan
from tests.helpers import settings_with


def kept(tmp_path):
    stores = DiskCache(tmp_path / "stores", 1)
    rows = np.zeros((10, 3), np.float32)
    stores.get(Plan("test", {}, rows.shape, rows.dtype, "rows"), lambda write: write(0, rows))
    data = settings_with({"data.cache_dir": tmp_path / "cache", "data.sample_images": 30}).data
    sources.fetch(data, 0)
    (tmp_path / "cache/of-others").mkdir()
    return stores, data


def test_stores(run_step, tmp_path):
    stores, _ = kept(tmp_path)
    done = run_step("clean", "--cache.dir", str(tmp_path / "stores"), "--data.cache_dir", str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "120 bytes freed" in done.stderr
    assert not list(stores.folder.glob("*"))
    assert list((tmp_path / "cache").glob("phantoms-*"))


def test_everything(run_step, tmp_path):
    kept(tmp_path)
    words = ("--what", "all", "--cache.dir", str(tmp_path / "stores"), "--data.cache_dir", str(tmp_path / "cache"))
    done = run_step("clean", *words)
    assert done.returncode == 0, done.stderr
    assert [f.name for f in (tmp_path / "cache").iterdir()] == ["of-others"]


def test_anything_else_is_refused(run_step, tmp_path):
    done = run_step("clean", "--what", "home")
    assert done.returncode == 1
    assert "what=home; allowed: stores, all" in done.stderr
