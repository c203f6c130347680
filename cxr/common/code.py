"""What computes a result: the files that a module reaches by imports, and the versions of the libraries they import.

Keys of cached results and of steps are made of it, so that nothing is reused that other code has computed.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("cxr", "steps")
# Decoders that pydicom looks for by itself; no file of ours imports them.
_PLUGINS = {"pydicom": ("gdcm", "pylibjpeg", "openjpeg", "libjpeg", "rle")}
# Libraries that show, lock, log, fetch or share out work; no result depends on their version.
_IDLE = {
    "fsspec",
    "tqdm",
    "filelock",
    "psutil",
    "platformdirs",
    "concurrent-log-handler",
    "python-json-logger",
    "pyspark",
}


def sources(*modules: str) -> list[Path]:
    """Every file of this project that `modules` (full names) reach by imports, with the templates beside them."""
    files: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        file = _module_file(module)
        if module in files or file is None:
            continue
        files[module] = file
        waiting += [*sorted(imports(file)), module.rpartition(".")[0]]  # a package is run before its modules
    reached = set(files.values())
    return sorted(reached | {template for file in reached for template in _templates(file)})


def imports(file: Path) -> set[str]:
    """Full names of the project's modules that `file` imports, at its top or inside functions."""
    return {name for name in _imported(file.read_text(encoding="utf-8")) if name.split(".", maxsplit=1)[0] in PACKAGES}


def libraries(*modules: str) -> dict[str, str]:
    """Versions of the installed distributions that `modules` import, directly or through this project's files."""
    names: set[str] = set()
    for file in sources(*modules):
        if file.suffix == ".py":
            names |= {name.split(".", maxsplit=1)[0] for name in _imported(file.read_text(encoding="utf-8"))}
    names |= {plugin for name in names for plugin in _PLUGINS.get(name, ())}
    installed = _distributions()
    found = {installed[name] for name in names if name in installed and name not in sys.stdlib_module_names}
    return {distribution: version(distribution) for distribution in sorted(found - _IDLE)}


def digest(*modules: str) -> str:
    """Digest of the sources and libraries of `modules`: equal digests compute equal results on one machine."""
    sha = hashlib.sha256()
    for file in sources(*modules):
        sha.update(f"{file.relative_to(PROJECT).as_posix()}\n".encode())
        sha.update(hashlib.sha256(file.read_bytes()).digest())
    sha.update(repr(libraries(*modules)).encode())
    return sha.hexdigest()


@cache
def _imported(source: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def _module_file(module: str) -> Path | None:
    if module.split(".", maxsplit=1)[0] not in PACKAGES:
        return None
    base = PROJECT.joinpath(*module.split("."))
    return next((file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()), None)


def _templates(file: Path) -> Iterator[Path]:
    """Files beside a module that are read at run time: `page.html.j2` beside `page.py`."""
    return (other for other in file.parent.glob(f"{file.stem}.*") if other.suffix not in (".py", ".pyc"))


@cache
def _distributions() -> dict[str, str]:
    """Distribution of every importable top-level name; read once, since it takes a third of a second."""
    return {name: min(owners) for name, owners in packages_distributions().items()}
