"""Settings that a step works with: its own sections can be set, those of earlier steps are fixed.

Each step owns some sections of params.yaml. The sections of earlier steps come from the run that the step starts from,
and can no longer be changed. The step's own sections come from the settings file with the profile of that run;
`finetune`, which continues a training, takes them from the train run itself. A profile or settings file on the command
line always wins for the step's own sections.
"""

from typing import TYPE_CHECKING

from cxr.errors import CxrError
from cxr.settings import load
from cxr.settings.schema import Settings
from steps.runtime.cli import PARAMS, PLAIN_SETTINGS, Arguments

if TYPE_CHECKING:
    from mlflow.entities import Run

    from steps.runtime.context import Context

OWNED = {
    "prepare_split": ("data",),
    "train": ("model", "train"),
    "finetune": ("finetune",),
    "evaluate": ("evaluate", "registry", "serving"),
}
# Sections of entry points that are no steps of `main`.
ALONE = {"monitor": ("monitor",), "search": ("search",)}
# Sections of other steps that a step which owns none reads, and that decide its result.
READ = {"validate": ("data", "evaluate")}
COMMON = (*PLAIN_SETTINGS, "cache", "calibration")
DEFAULT_PROFILE = "sample"


def owner(key: str) -> str | None:
    """The step that a setting belongs to; None for settings that every step has."""
    section = key.split(".", maxsplit=1)[0]
    return next((step for step, sections in (OWNED | ALONE).items() if section in sections), None)


def early(arguments: Arguments, name: str) -> object:
    """One of `PLAIN_SETTINGS`, by the command line or the settings file, for who cannot wait for all settings."""
    return arguments.overrides.get(name) or load.read_file(arguments.flags.get("params", PARAMS)).get(name)


def settings_for(context: "Context", arguments: Arguments) -> Settings:
    """Resolve and check the settings of the step that runs in `context`, and tag the run with its profile."""
    name = context.step.name
    flags, overrides = arguments.flags, arguments.overrides
    params = flags.get("params", PARAMS)
    if "run_ids" in flags:  # several trainings that share their settings except for the seed
        first_run_id = flags["run_ids"].split(",", maxsplit=1)[0].strip()
        return load.resolve(load.read_file(context.fetch(first_run_id, "settings.yaml")), overrides)
    if name not in OWNED:  # the driver, which owns all sections, or a step that owns none
        profile = flags.get("profile", DEFAULT_PROFILE)
        context.tag("cxr.profile", profile)
        return load.load_settings(params, profile, overrides)
    earlier_steps = list(OWNED)[: list(OWNED).index(name)]
    for key in overrides:
        if owner(key) in earlier_steps:
            raise CxrError(
                f"setting {key} belongs to {owner(key)}, whose result this step starts from; "
                f"change it with `mlflow run . -e {owner(key)}` or `-e main`"
            )
    run = _start_run(context)
    profile = flags.get("profile") or (run.data.tags.get("cxr.profile") if run else None) or DEFAULT_PROFILE
    context.tag("cxr.profile", profile)
    if run is None:
        return load.load_settings(params, profile, overrides)
    inherited = load.read_file(context.fetch(run.info.run_id, "settings.yaml"))
    if name == "finetune" and "profile" not in flags and "params" not in flags:
        return load.resolve(inherited, overrides)
    current = load.load_settings(params, profile, overrides).to_dict()
    fixed = {section: inherited[section] for step in earlier_steps for section in OWNED[step] if section in inherited}
    return load.resolve({**current, **fixed})


def _start_run(context: "Context") -> "Run | None":
    """The run that the step's first run parameter names or finds; None for a step that starts from no run."""
    if not context.step.parents or context.flags.get("bundle"):
        return None
    return context.parent(next(iter(context.step.parents)))
