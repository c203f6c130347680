"""Whose settings a step works with: its own sections are its to set, earlier steps' sections are facts.

A step owns some sections of params.yaml. Sections of the steps before it come from the run it starts from and cannot
be changed any more. Its own come from the settings file with the profile of that run; `finetune`, which continues a
training, takes them from the train run itself. A named profile or settings file always wins for the step's own.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import CxrError
from cxr.settings import load
from cxr.settings.schema import Settings
from steps.runtime.cli import PLAIN_SETTINGS, Arguments

if TYPE_CHECKING:
    from mlflow.entities import Run

    from steps.runtime.context import Context

OWNED = {
    "prepare_split": ("data",),
    "train": ("model", "train"),
    "finetune": ("finetune",),
    "evaluate": ("evaluate", "registry", "serving"),
}
COMMON = (*PLAIN_SETTINGS, "cache", "calibration")
DEFAULT_PROFILE = "sample"
PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


def owner(key: str) -> str | None:
    """The step that a setting belongs to; None for settings that every step has."""
    section = key.split(".")[0]
    return next((step for step, sections in OWNED.items() if section in sections), None)


def settings_for(context: "Context", arguments: Arguments) -> Settings:
    """Resolve and check the settings of the step that runs in `context`, and tag its profile."""
    name = context.step.name
    given, overrides = arguments.flags, arguments.overrides
    params = given.get("params", PARAMS)
    if "run_ids" in given:  # several trainings that share their settings but for the seed
        then = context.fetch(given["run_ids"].split(",")[0].strip(), "settings.yaml")
        return load.resolve(load.read_file(then), overrides)
    if name not in OWNED:  # the driver, which owns all of it
        profile = given.get("profile", DEFAULT_PROFILE)
        context.tag("cxr.profile", profile)
        return load.load_settings(params, profile, overrides)
    earlier = list(OWNED)[: list(OWNED).index(name)]
    for key in overrides:
        if owner(key) in earlier:
            raise CxrError(
                f"setting {key} belongs to {owner(key)}, whose result this step starts from; "
                f"change it with `mlflow run . -e {owner(key)}` or `-e main`"
            )
    run = _start_from(context)
    profile = given.get("profile") or (run.data.tags.get("cxr.profile") if run else None) or DEFAULT_PROFILE
    context.tag("cxr.profile", profile)
    if run is None:
        return load.load_settings(params, profile, overrides)
    then = load.read_file(context.fetch(run.info.run_id, "settings.yaml"))
    if name == "finetune" and "profile" not in given and "params" not in given:
        return load.resolve(then, overrides)
    now = load.load_settings(params, profile, overrides).to_dict()
    facts = {section: then[section] for step in earlier for section in OWNED[step] if section in then}
    return load.resolve({**now, **facts})


def _start_from(context: "Context") -> "Run | None":
    """The run that the step's first run parameter names or finds; None where it can do without one."""
    if not context.step.parents or context.flags.get("bundle"):
        return None
    return context.parent(next(iter(context.step.parents)))
