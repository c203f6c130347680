"""Key of a step: a digest of everything that decides its result, so that an unchanged step can be reused.

Its components are the settings that the step uses, the source files that it can reach by imports, the digests of its
inputs, and the versions of the libraries that compute. They are kept as tags of the run, `cxr.key.*`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from cxr.common import code, storage
from cxr.common.remote import Remote
from cxr.common.storage import Place
from cxr.settings.differences import flat
from cxr.settings.schema import DataSettings, Settings
from steps.runtime.cli import PLAIN_SETTINGS
from steps.runtime.context import Context
from steps.runtime.settings import OWNED, READ

# The script that MLflow runs in a served model is logged by its path, and losses are named in the settings.
UNIMPORTED = {
    "train": ("cxr.training.losses",),
    "finetune": ("cxr.training.losses",),
    "evaluate": ("cxr.serving.mlflow_model",),
}
# Settings that change where or how fast something is computed, but not the result.
IDLE = {"log_dir", "data.cache_dir", "data.engine", "data.workers", "train.workers", "finetune.workers"}
IDLE |= {"train.checkpoint_interval", "finetune.checkpoint_interval"}
IDLE |= {"data.recipe"}  # its values are settings themselves
IDLE |= {"cache.dir", "cache.max_gb", "cache.decoded"}
COMPONENTS = ("settings", "code", "inputs", "libraries")


def components(step: str, settings: Settings, inputs: list[str]) -> dict[str, str]:
    """Digests by component; `inputs` are the digests of what the step reads (see `data_fingerprint`)."""
    return {
        "settings": _digest(used_settings(step, settings)),
        "code": code.digest(*entries(step)),
        "inputs": _digest(inputs),
        "libraries": _digest(code.libraries(*entries(step))),
    }


def key(parts: dict[str, str]) -> str:
    """One digest of all components."""
    return _digest({name: parts[name] for name in COMPONENTS})


def tag(context: Context, parts: dict[str, str]) -> None:
    """Tag the run of `context` with the key and its components."""
    context.tag("cxr.step_key", key(parts))
    for name in COMPONENTS:
        context.tag(f"cxr.key.{name}", parts[name])


def used_settings(step: str, settings: Settings) -> dict[str, Any]:
    """Settings that decide the result of a step, by full name."""
    return used_values(step, settings.to_dict())


def used_values(step: str, values: dict[str, Any]) -> dict[str, Any]:
    """Those of them that `values` has, which may be of an earlier version of the schema."""
    sections: tuple[str, ...] = READ.get(step) or OWNED[step]
    sections += ("seed",) if step in ("prepare_split", *READ) else PLAIN_SETTINGS
    sections += ("cache",) if step in ("train", "finetune") else ()
    sections += ("calibration",) if step in OWNED and step != "prepare_split" else ()
    used = flat({name: values[name] for name in sections if name in values})
    return {name: value for name, value in used.items() if name not in IDLE}


def data_fingerprint(data: DataSettings) -> str:
    """Digest of what `data.path` shows without being read, and of the content of the tables of labels.

    Of a folder, these are names, sizes and modification times of its files; in remote storage, what it keeps of them
    instead of times (see `Remote.identity`).
    """
    images, tables = _images(data), data.labels
    if tables is None:
        return images
    files = [storage.under(_root(data), name, "data.labels") for name in flat({"": tables}).values()]
    # A table that is not there yet is part of an archive or a download, which `images` stands for.
    return _digest([images, *(storage.sha256_of(file) for file in files if file.is_file())])


def _images(data: DataSettings) -> str:
    root = _root(data)
    if isinstance(root, Remote):
        return _digest([str(root), root.identity() if root.is_file() else root.listed() if root.is_dir() else ""])
    if root.is_file():
        return _digest([str(root.resolve()), root.stat().st_size, root.stat().st_mtime_ns])
    if root.is_dir():
        files = sorted(file for file in root.rglob("*") if file.is_file())
        stats = [(file.relative_to(root).as_posix(), file.stat()) for file in files]
        return _digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])
    return _digest([data.path, data.sha256])


def _root(data: DataSettings) -> Place:
    """Where the images are; a path that does not exist for those that are downloaded or drawn first."""
    return Path(data.path) if storage.is_download(data.path) else storage.given(data.path, "data_path")


def entries(step: str) -> tuple[str, ...]:
    """Modules that a step begins with: its entry point, its work, and what it uses without importing it."""
    return (f"steps.{step}", f"steps.work.{step}", *UNIMPORTED.get(step, ()))


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
