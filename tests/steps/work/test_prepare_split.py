"""`prepare_split` as users start it: several at once, with the same cache folder."""

import zipfile
from concurrent.futures import ThreadPoolExecutor

import mlflow
import numpy as np

from tests.helpers import png

RNG = np.random.default_rng(0)


def test_two_runs_on_one_archive_at_once_make_the_same_split(run_step, experiment_id, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for number in range(900):
            label = ("normal", "bacteria", "virus")[number % 3]
            name = f"NORMAL/IM-{number}-1.png" if label == "normal" else f"PNEUMONIA/person{number}_{label}_1.png"
            packed.writestr(name, png(RNG.integers(0, 256, (24, 24), dtype=np.uint8)))
    argv = ("--data_path", str(tmp_path / "set.zip"), "--data.cache_dir", str(tmp_path / "cache"))
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: run_step("prepare_split", *argv, "--data.workers", "1"), range(2)))
    assert [process.returncode for process in done] == [0, 0], "".join(process.stderr for process in done)
    runs = mlflow.MlflowClient().search_runs([experiment_id])
    assert len(runs) == 2 and len({run.data.tags["cxr.manifest_digest"] for run in runs}) == 1
    assert all(run.data.metrics["decoded"] == 900 for run in runs)
