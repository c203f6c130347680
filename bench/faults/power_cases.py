"""What the project writes and reads again: the cases of `bench.faults.power`."""

import secrets
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

from bench.common import settings
from bench.faults import power_results
from bench.faults.power_recorder import Recorder
from cxr.common import storage
from cxr.common.files import publish
from cxr.common.names import PNEUMONIA
from cxr.datasets import archive, patients, phantom, sources
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.errors import CxrError
from cxr.loading.cached_array import ROWS, Plan
from cxr.loading.disk_cache import DiskCache
from cxr.models import bundle
from cxr.models.build import build
from cxr.models.bundle import Bundle
from cxr.serving import batch
from cxr.serving.service import MEASURED, columns
from cxr.training import checkpoint

CLASSES = ("normal", "bacteria", "virus")
OLD, NEW, AGAIN = "the old one", "the new one", "none, and written again"


class HalfError(Exception):
    """Something half was taken for whole, or what was reported as written is lost."""


@dataclass(frozen=True)
class Written:
    """Something that the project writes.

    Attributes:
        name: what it is.
        prepare: puts what was there before into a folder.
        write: what is recorded.
        read: reads it after a power failure and says what it is; `promise` is what `write` had reported as done by
            then. Raises `HalfError` for a half one, and any error if it cannot be written again.
        finished: what `read` may say when `write` had returned.
    """

    name: str
    prepare: Callable[[Path], object]
    write: Callable[[Path, Recorder], object]
    read: Callable[[Path, int], str]
    finished: tuple[str, ...] = (NEW,)


def _check(whole: object, text: str) -> None:
    if not whole:
        raise HalfError(text)


def _nothing(folder: Path) -> None:
    pass


def _file() -> Written:
    def write(folder: Path, _: Recorder) -> None:
        (folder / "scratch").write_bytes(b"new" * 1000)
        publish(folder / "scratch", folder / "file")

    def read(folder: Path, _: int) -> str:
        content = (folder / "file").read_bytes()
        _check(content in (b"old" * 1000, b"new" * 1000), "half")
        return OLD if content.startswith(b"old") else NEW

    return Written(
        "a file that gets its name", lambda folder: (folder / "file").write_bytes(b"old" * 1000), write, read
    )


def _checkpoint() -> Written:
    def save(folder: Path, epoch: int) -> None:
        checkpoint.save({"epoch": epoch, "weights": torch.full((5000,), float(epoch))}, folder / "run/last.pt")

    def read(folder: Path, _: int) -> str:
        state = checkpoint.load(folder / "run/last.pt")
        _check(torch.equal(state["weights"], torch.full((5000,), float(state["epoch"]))), "half")
        return {1: OLD, 2: NEW}[state["epoch"]]

    return Written("a checkpoint over an older one", lambda f: save(f, 1), lambda f, _: save(f, 2), read)


def _bundle(over: bool) -> Written:
    model = settings({"model.name": "shufflenet_v2_x0_5", "model.weights": "none", "model.input_size": 64}).model
    made = {1.0: build(model, CLASSES, seed=1), 2.0: build(model, CLASSES, seed=2)}

    def save(folder: Path, temperature: float) -> None:
        bundle.save(Bundle(made[temperature], temperature), folder / "bundle")

    def read(folder: Path, _: int) -> str:
        try:
            loaded = bundle.load(folder / "bundle")
        except CxrError:
            save(folder, 2.0)
            _check(bundle.load(folder / "bundle").temperature == 2.0, "half")
            return AGAIN
        expected = made[loaded.temperature].module.state_dict()
        _check(
            all(torch.equal(value, expected[name]) for name, value in loaded.network.module.state_dict().items()),
            "half",
        )
        return {1.0: OLD, 2.0: NEW}[loaded.temperature]

    name = "a bundle over an older one" if over else "a bundle"
    return Written(name, (lambda f: save(f, 1.0)) if over else _nothing, lambda f, _: save(f, 2.0), read)


def _manifest() -> Written:
    def made(label: str) -> Manifest:
        row = {"path": "a.png", "sha256": "0" * 64, "label": label, "patient": "p", "split": "train", "mode": "L"}
        rows = pd.DataFrame([{**row, "path": f"{n}.png", "width": 9, "height": 9} for n in range(40)])[COLUMNS]
        return Manifest(rows, Path("images"), ("normal", "bacteria", "virus"))

    def read(folder: Path, _: int) -> str:
        try:
            labels = set(Manifest.load(folder).rows["label"])
        except CxrError:
            made("virus").save(folder)
            _check(set(Manifest.load(folder).rows["label"]) == {"virus"}, "half")
            return AGAIN
        _check(len(labels) == 1, "half")
        return {"normal": OLD, "virus": NEW}[labels.pop()]

    return Written("a manifest over an older one", made("normal").save, lambda f, _: made("virus").save(f), read)


def _key() -> Written:
    def pseudonym(folder: Path) -> str:
        patients._key.cache_clear()
        return patients.pseudonym("4711")

    def write(folder: Path, _: Recorder) -> None:
        with _in(folder), mock.patch.object(secrets, "token_hex", lambda size: "ab" * size):
            made.append(pseudonym(folder))

    def read(folder: Path, _: int) -> str:
        with _in(folder):
            there, said = patients.key_file().exists(), pseudonym(folder)
        _check(said == made[0] or not there, "another pseudonym than was given before")
        return NEW if there else AGAIN

    def _in(folder: Path) -> Any:
        return mock.patch.object(patients, "key_file", return_value=folder / "config/cxr/patients.key")

    made: list[str] = []
    return Written("the key of patient pseudonyms", _nothing, write, read)


def _cached(damaged: bool) -> Written:
    rows = np.arange(1, 12_001, dtype=np.float32).reshape(400, 30)
    plan = Plan("power", {}, rows.shape, rows.dtype, "400 rows")

    def fill(write: Callable[[int, np.ndarray], None]) -> None:
        for first in range(0, len(rows), 100):
            write(first, rows[first : first + 100])

    def prepare(folder: Path) -> None:
        if damaged:
            DiskCache(folder, 1).get(plan, fill)
            (folder / plan.name / ROWS).write_bytes(bytes(plan.bytes))

    def read(folder: Path, _: int) -> str:
        cache = DiskCache(folder, 1)
        found = cache.find(plan)
        array = found or cache.get(plan, fill)
        _check(array is not None and (array.rows == rows).all(), "half")
        return NEW if found else AGAIN

    name = "a cached array over a damaged one" if damaged else "a cached array"
    return Written(name, prepare, lambda f, _: DiskCache(f, 1).get(plan, fill), read)


def _unpacked(inputs: Path, cleared: bool) -> Written:
    images = {f"train/NORMAL/{n}.png": bytes([n + 1]) * 3000 for n in range(8)}
    file = inputs / "images.zip"
    with zipfile.ZipFile(file, "w") as packed:
        for name, content in images.items():
            packed.writestr(name, content)

    def read(folder: Path, _: int) -> str:
        there = any(folder.glob(f"images-*/{archive.DONE}"))
        root, _ = archive.unpack(file, folder)
        found = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.png")}
        _check(found == images, f"{len(found)} of {len(images)} images")
        return NEW if there else AGAIN

    if cleared:
        return _clearing("an unpacked archive that is removed", lambda folder: archive.unpack(file, folder), read)
    return Written("an unpacked archive", _nothing, lambda f, _: archive.unpack(file, f), read)


def _phantoms(cleared: bool) -> Written:
    images = {Path(f"train/{n}.jpeg"): bytes([n + 1]) * 3000 for n in range(5)}
    data = settings({"data.path": "sample"}).data

    def drawn(folder: Path, *_: int) -> None:
        (folder / "train").mkdir()
        for path, content in images.items():
            (folder / path).write_bytes(content)

    def draw(folder: Path) -> Path:
        with mock.patch.object(phantom, "draw", drawn):
            return sources.fetch(data.model_copy(update={"cache_dir": str(folder)}), 0).root

    def read(folder: Path, _: int) -> str:
        there = any(folder.glob("phantoms-v*"))
        root = draw(folder)
        found = {p.relative_to(root): p.read_bytes() for p in root.rglob("*.jpeg")}
        _check(found == images, f"{len(found)} of {len(images)} images")
        return NEW if there else AGAIN

    if cleared:
        return _clearing("drawn phantoms that are removed", draw, read)
    return Written("drawn phantoms", _nothing, lambda f, _: draw(f), read)


def _clearing(name: str, prepare: Callable[[Path], object], read: Callable[[Path, int], str]) -> Written:
    data = settings({}).data

    def write(folder: Path, _: Recorder) -> None:
        sources.clear(data.model_copy(update={"cache_dir": str(folder)}))

    return Written(name, prepare, write, read, finished=(AGAIN,))


class _Service:
    """Answers every file with one word, and counts what it is asked."""

    classes, finding, limits = CLASSES, PNEUMONIA, SimpleNamespace(max_bytes=100, max_images=64)

    def __init__(self, word: str):
        self.asked, self.cells = 0, {"label": word, "status": "ok"} | dict.fromkeys(MEASURED, 1)

    def answer(self, values: list[Any], **_: object) -> pd.DataFrame:
        self.asked += len(values)
        return pd.DataFrame([dict.fromkeys(columns(self.classes, self.finding)) | self.cells] * len(values))


def _predictions(other: bool) -> Written:
    """`other`: after the power failure, the output is removed and another model writes it."""
    paths = [f"{number}.png" for number in range(10)]

    def score(folder: Path, word: str) -> int:
        service: Any = _Service(word)
        with mock.patch.object(batch, "SHARD_ROWS", 4):
            batch.score(service, paths, folder / "scores.parquet", {}, word)
        table = pd.read_parquet(folder / "scores.parquet")
        _check(list(table["path"]) == paths and set(table["label"]) == {word}, f"{table['label'].value_counts()}")
        return service.asked

    def write(folder: Path, recorder: Recorder) -> None:
        def promised(*arguments: Any) -> None:
            real(*arguments)
            recorder.promise += 1  # first the plan, then each shard, then the output

        with mock.patch.object(storage, "write", promised):
            score(folder, "a")

    def read(folder: Path, promise: int) -> str:
        if other:
            (folder / "scores.parquet").unlink(missing_ok=True)
            try:
                score(folder, "b")
            except CxrError as error:
                _check("another prediction" in str(error), str(error))
                shutil.rmtree(folder / "scores.parquet.shards")  # as the message says
                score(folder, "b")
            return AGAIN
        asked, safe = score(folder, "a"), min(len(paths), 4 * max(0, promise - 1))
        _check(asked <= len(paths) - safe, f"{asked} scored again, {safe} had been written")
        return NEW if not asked else "some, and the rest written"

    real = storage.write
    name = "predictions that another model writes again" if other else "predictions"
    return Written(name, _nothing, write, read, finished=(AGAIN,) if other else (NEW,))


def cases(inputs: Path) -> list[Written]:
    """All of them; `inputs` is a folder for what they read."""
    return [
        _file(), _checkpoint(), _bundle(False), _bundle(True), _manifest(), _key(), _cached(False), _cached(True),
        _unpacked(inputs, False), _unpacked(inputs, True), _phantoms(False), _phantoms(True),
        _predictions(False), _predictions(True), power_results.case(Written, _nothing, _check),
    ]  # fmt: skip
