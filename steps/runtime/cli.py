"""Command line of a step: the `--name value` pairs that MLflow passes, restricted to known names.

MLflow passes every declared parameter of MLproject (an empty text where none was given) and appends any other
`-P key=value` as `--key value`. The full name of a setting overrides it; any other name must be declared.
"""

import argparse
import difflib
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from cxr.errors import CxrError
from cxr.settings import load

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
# Parameters that every step takes, with the help text of each.
COMMON = {
    "profile": "profile of the settings file",
    "params": "settings file to use instead of params.yaml",
    "seed": "setting seed",
    "log_dir": "setting log_dir",
}
PROCESSES = "number of processes that train together on this machine; default: one per card, one without cards"
# Settings that belong to no section, and so have no dot in their names.
PLAIN_SETTINGS = ("seed", "device", "precision", "deterministic", "log_dir")


@dataclass(frozen=True, kw_only=True)
class Step:
    """Name and parameters of a step.

    Attributes:
        name: entry point in MLproject.
        about: one sentence for `--help`.
        parents: parameter that names a run -> steps that such a run may be of.
        short: parameter -> the settings it stands for, separated by blanks.
        flags: other parameters -> help text.
        system_metrics: whether MLflow samples CPU, memory and GPU during the run.
        parallel: whether several processes can do the step together; it then has the parameter `processes`.
    """

    name: str
    about: str
    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    short: dict[str, str] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    system_metrics: bool = False
    parallel: bool = False

    def parameters(self) -> dict[str, str]:
        """Every declared parameter with its help text, in the order of MLproject."""
        runs = {
            name: f"ID of a {' or '.join(kinds)} run; default: the newest finished one"
            for name, kinds in self.parents.items()
        }
        short = {name: f"setting {keys.replace(' ', ' and ')}" for name, keys in self.short.items()}
        parallel = {"processes": PROCESSES} if self.parallel else {}
        return {**runs, **self.flags, **parallel, **short, **COMMON}


@dataclass(frozen=True)
class Arguments:
    """A parsed command line: the declared parameters that were given, and the settings to override."""

    flags: dict[str, str]
    overrides: dict[str, str]


def parse(step: Step, argv: list[str]) -> Arguments:
    """Parse `argv`; `--help` prints and exits, an unknown name raises `CxrError` with the closest known one."""
    declared = step.parameters()
    if "--help" in argv or "-h" in argv:
        _help(step, declared)
    flags: dict[str, str] = {}
    overrides: dict[str, str] = {}
    short = {**step.short, "seed": "seed", "log_dir": "log_dir"}
    for name, value in _pairs(argv):
        if "." in name or (name in PLAIN_SETTINGS and name not in declared):
            overrides[name] = value
        elif name not in declared:
            raise CxrError(f"unknown parameter {name!r}; {_closest(name, declared)}")
        elif value != "":
            flags[name] = value
    # A full name (-P train.epochs=3) wins over the short name that means the same.
    for name in [name for name in short if name in flags]:
        for key in short[name].split():
            overrides.setdefault(key, flags[name])
    return Arguments(flags, overrides)


def _pairs(argv: list[str]) -> list[tuple[str, str]]:
    pairs, rest = [], list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise CxrError(f"expected a parameter, got {word!r}; write --name value, or -P name=value")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest:
                raise CxrError(f"parameter {name!r} has no value; write --{name} value, or -P {name}=value")
            value = rest.pop(0)
        pairs.append((name, value))
    # The Kubernetes backend of MLflow quotes for a shell that it then does without; an empty value shows it.
    if any(value == "''" for _, value in pairs):
        return [(name, _unquoted(value)) for name, value in pairs]
    return pairs


def _unquoted(value: str) -> str:
    """The text that `shlex.quote` has made `value` of, or `value` itself if that is not how it came about."""
    try:
        words = shlex.split(value)
    except ValueError:
        return value
    return words[0] if len(words) == 1 and shlex.quote(words[0]) == value else value


def _closest(name: str, declared: dict[str, str]) -> str:
    matches = difflib.get_close_matches(name, [*declared, *PLAIN_SETTINGS], n=1, cutoff=0.5)
    hint = f"did you mean {matches[0]!r}? " if matches else ""
    return f"{hint}known: {', '.join(declared)}, and any setting by its full name (train.epochs)"


def _help(step: Step, declared: dict[str, str]) -> None:
    parser = argparse.ArgumentParser(
        prog=f"mlflow run . -e {step.name}",
        description=step.about,
        epilog="Any setting of params.yaml can be given by its full name, e.g. --train.epochs 10 (-P train.epochs=10).",
    )
    profiles = " | ".join(load.profiles(PARAMS))
    for name, text in {**declared, "profile": f"{profiles}, or another {declared['profile']}"}.items():
        parser.add_argument(f"--{name}", help=text.replace("%", "%%"), metavar="")
    parser.print_help()
    raise SystemExit(0)
