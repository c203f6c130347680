"""`clean` removes what the project keeps in its cache folders, and nothing else."""

import re

import numpy as np

from cxr.datasets import sources
from cxr.loading.cached_array import Plan
from cxr.loading.disk_cache import DiskCache
from tests.helpers import settings_with


def filled(tmp_path):
    cache = DiskCache(tmp_path / "arrays", 1)
    rows = np.zeros((10, 3), np.float32)
    cache.get(Plan("test", {}, rows.shape, rows.dtype, "rows"), lambda write: write(0, rows))
    data = settings_with({"data.cache_dir": tmp_path / "downloads", "data.sample_images": 30}).data
    sources.fetch(data, 0)
    (tmp_path / "downloads/of-others").mkdir()
    return cache, data


def test_cache(run_step, tmp_path):
    cache, _ = filled(tmp_path)
    process = run_step(
        "clean", "--cache.dir", str(tmp_path / "arrays"), "--data.cache_dir", str(tmp_path / "downloads")
    )
    assert process.returncode == 0, process.stderr
    assert 120 <= int(re.search(r"(\d+) bytes freed", process.stderr)[1]) < 1000
    assert not list(cache.folder.glob("*"))
    assert list((tmp_path / "downloads").glob("phantoms-*"))


def test_everything(run_step, tmp_path):
    filled(tmp_path)
    argv = ("--what", "all", "--cache.dir", str(tmp_path / "arrays"), "--data.cache_dir", str(tmp_path / "downloads"))
    process = run_step("clean", *argv)
    assert process.returncode == 0, process.stderr
    assert [f.name for f in (tmp_path / "downloads").iterdir()] == ["of-others"]


def test_another_value_is_refused(run_step):
    process = run_step("clean", "--what", "home")
    assert process.returncode == 1
    assert "what: expected one of cache, all, got 'home'" in process.stderr
