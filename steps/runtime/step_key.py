"""The key of a step: a digest of everything that decides its result, so that an unchanged step can be reused.

Its components are the settings the step uses, the source files it can reach by imports, the digests of what it
reads, and the versions of the libraries that compute. They are kept as tags of the run, `cxr.key.*`.
"""

import ast
import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cxr.settings.schema import DataSettings, Settings
from steps.runtime.cli import PLAIN_SETTINGS
from steps.runtime.context import Context
from steps.runtime.settings import OWNED

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("cxr", "steps")
LIBRARIES = ("torch", "torchvision", "torchmetrics", "numpy", "pillow", "scikit-learn", "scipy", "mlflow")
# Settings that change where or how fast something is done, not what comes out.
IDLE = {"log_dir", "data.cache_dir", "data.workers", "train.workers", "finetune.workers"}
IDLE |= {"cache.dir", "cache.max_gb", "cache.decoded"}
COMPONENTS = ("settings", "code", "inputs", "libraries")


def components(step: str, settings: Settings, inputs: list[str]) -> dict[str, str]:
    """Digests by component; `inputs` are the digests of what the step reads (see `data_fingerprint`)."""
    return {
        "settings": _digest(used_settings(step, settings)),
        "code": _digest({str(f.relative_to(PROJECT)): _file_digest(f) for f in sources(step)}),
        "inputs": _digest(inputs),
        "libraries": _digest({name: _version(name) for name in LIBRARIES}),
    }


def key(parts: dict[str, str]) -> str:
    """One digest over all components."""
    return _digest({name: parts[name] for name in COMPONENTS})


def tag(context: Context, parts: dict[str, str]) -> None:
    """Write the key and its components to the run of `context`."""
    context.tag("cxr.step_key", key(parts))
    for name in COMPONENTS:
        context.tag(f"cxr.key.{name}", parts[name])


def used_settings(step: str, settings: Settings) -> dict:
    """The settings that decide the result of a step, by dotted key."""
    sections = OWNED[step] + (("seed",) if step == "prepare_split" else PLAIN_SETTINGS)
    sections += ("cache", "calibration") if step in ("train", "finetune") else ()
    flat = _flat({name: settings.to_dict()[name] for name in sections})
    return {name: value for name, value in flat.items() if name not in IDLE}


def data_fingerprint(data: DataSettings) -> str:
    """What can be known of `data.path` without reading it: names, sizes and times of its files."""
    root = Path(data.path).expanduser()
    if root.is_file():
        return _digest([str(root.resolve()), root.stat().st_size, root.stat().st_mtime_ns])
    if root.is_dir():
        files = sorted(f for f in root.rglob("*") if f.is_file())
        return _digest([[f.relative_to(root).as_posix(), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    return _digest([data.path, data.sha256])


def sources(step: str) -> list[Path]:
    """Every file of this project that the step's module can reach by imports, itself included."""
    seen: dict[str, Path] = {}
    waiting = [f"steps.{step}"]
    while waiting:
        module = waiting.pop()
        file = _module_file(module)
        if module in seen or file is None:
            continue
        seen[module] = file
        waiting += sorted(imports(file))
    return sorted(set(seen.values()))


def imports(file: Path) -> set[str]:
    """Full names of the project's modules that `file` imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def _module_file(module: str) -> Path | None:
    base = PROJECT.joinpath(*module.split("."))
    return next((f for f in (base.with_suffix(".py"), base / "__init__.py") if f.is_file()), None)


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _digest(values) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
