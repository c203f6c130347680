"""Steps as child runs: what the drivers `main` and `search` share."""

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import ExecutionException

from cxr.errors import CxrError
from cxr.settings import load
from cxr.settings.schema import Settings
from steps.runtime import reuse, runs, step_key, supervisor
from steps.runtime.context import Context
from steps.runtime.settings import COMMON, DEFAULT_PROFILE, PARAMS, owner

if TYPE_CHECKING:
    from mlflow.entities import Run

# For each step, the parameter that names the run it starts from, and the step that this run is of.
STARTS_FROM = {
    "train": ("split_run_id", "prepare_split"),
    "finetune": ("train_run_id", "train"),
    "evaluate": ("run_id", "finetune"),
}


def step(
    context: Context,
    name: str,
    done: dict[str, str],
    may_reuse: bool,
    overrides: dict[str, Any] | None = None,
    extra: dict[str, str] | None = None,
) -> str:
    """Reuse or run one step; returns the ID of the run that holds its result.

    `done` has the IDs of the earlier steps' runs. `overrides` are settings on top of those of the command line, `extra`
    other parameters, which change no result.
    """
    parameters = {**_parameters(context, name), **(overrides or {}), **(extra or {})}
    if name in STARTS_FROM:
        parameter, previous = STARTS_FROM[name]
        parameters[parameter] = done[previous]
    if name == "evaluate":
        _check_split(context, done)
    settings = load.resolve(context.settings.to_dict(), overrides)
    decision = reuse.Decision("reuse=false")
    if may_reuse:
        decision = reuse.decide(context.client, context.experiment_id, name, settings, _inputs(context, name, done))
    _take_over(context, decision.run or decision.resume)
    if decision.run is not None:
        context.log.info("%s: reused run %s, %s", name, decision.run.info.run_id, decision.why)
        return decision.run.info.run_id
    if decision.resume is not None:
        parameters["resume"] = decision.resume.info.run_id
        context.log.info("%s: resuming, %s", name, decision.why)
    else:
        context.log.info("%s: running, %s", name, decision.why)
    return launch(context, name, parameters)


def launch(context: Context, name: str, parameters: dict[str, str]) -> str:
    """Run a step as an MLflow project; returns the ID of its run, or of the run that it resumed."""
    # env_manager="local" takes the python on PATH: make sure that it is the one that runs the driver.
    own = str(Path(sys.executable).parent)
    if os.environ["PATH"].split(os.pathsep)[0] != own:
        os.environ["PATH"] = f"{own}{os.pathsep}{os.environ['PATH']}"
    # MLflow makes a folder there, and never removes it; two launches at once must not both make the first.
    projects = context.folder / "projects"
    projects.mkdir(parents=True, exist_ok=True)
    try:
        submitted = mlflow.projects.run(
            uri=str(PARAMS.parent),
            entry_point=name,
            parameters=parameters,
            env_manager="local",
            experiment_id=context.experiment_id,
            run_name=name,
            storage_dir=str(projects),
        )
    except ExecutionException as error:
        run_id = re.search(r"[0-9a-f]{32}", str(error))
        raise CxrError(f"step {name} failed: {_cause(context, run_id[0]) if run_id else error}") from None
    step_run = context.client.get_run(submitted.run_id)
    return step_run.data.tags.get("cxr.resumes", step_run.info.run_id)


def _cause(context: Context, run_id: str) -> str:
    """Why a launched run has failed; it says so itself, or in the earlier run that it resumed."""
    tags = context.client.get_run(run_id).data.tags
    at_work = tags.get("cxr.resumes", run_id)
    cause = tags.get("cxr.error") or context.client.get_run(at_work).data.tags.get("cxr.error")
    if cause is None:  # it never came to say so
        runs.tidy(context.client, at_work)
    return cause or supervisor.UNTOLD


def _take_over(context: Context, run: "Run | None") -> None:
    """A run that `main` reuses or resumes counts as its own from now on, not as that of a trial."""
    if run is not None and context.step.name == "main" and runs.TRIAL in run.data.tags:
        context.client.delete_tag(run.info.run_id, runs.TRIAL)


def is_common(key: str) -> bool:
    """Whether every step has the setting `key`."""
    return owner(key) is None and key.split(".", maxsplit=1)[0] in COMMON


def begin(context: Context, settings: Settings) -> None:
    """Check what `settings` name, and what they ask of the network, before any step runs.

    Warns of phantoms and of their profile.
    """
    shipped = load.load_settings(PARAMS)
    _check_classes(settings, shipped)
    _check_network(settings, shipped)
    if context.settings.data.path == "sample":
        context.log.warning("SYNTHETIC DATA: the sample consists of phantoms; its scores say nothing about X-rays")
    elif context.flags.get("profile", DEFAULT_PROFILE) == DEFAULT_PROFILE:
        context.log.warning("profile %r is meant for the phantoms; for X-rays use -P profile=cpu", DEFAULT_PROFILE)


def _check_classes(settings: Settings, shipped: Settings) -> None:
    """Check the network and the `_target_` classes that differ from the shipped ones."""
    if settings.model != shipped.model:
        from cxr.models import build  # imports torch, which a driver rarely needs

        build.check(settings.model)
    classes = len(settings.data.class_names)
    for current, default in ((settings.train, shipped.train), (settings.finetune, shipped.finetune)):
        if any(
            getattr(current, name) != getattr(default, name) for name in ("loss", "optimizer", "scheduler", "metric")
        ):
            from cxr.training import trials  # imports torch, which a driver rarely needs

            trials.check(current, classes)
    if settings.evaluate.metric != shipped.evaluate.metric:
        from cxr.training import trials

        trials.check_metric("evaluate.metric", settings.evaluate.metric, classes)


def _check_network(settings: Settings, shipped: Settings) -> None:
    """Check what depends on the network, if anything is asked of it that not every one can do."""
    trainings = [settings.train, settings.finetune]
    cut_elsewhere = (settings.model, settings.finetune.unfreeze) != (shipped.model, shipped.finetune.unfreeze)
    if cut_elsewhere or any(t.stages or t.dropout is not None for t in trainings):
        from cxr.training import suitability  # imports torch, which a driver rarely needs

        suitability.check(settings.model, settings.data.class_names, trainings)


def _inputs(context: Context, name: str, done: dict[str, str]) -> list[str]:
    """Digests of what a step reads: the data for the first step, results of earlier steps for the others."""
    if name not in STARTS_FROM:
        return [step_key.data_fingerprint(context.settings.data)]
    # The bundle that a step starts from says nothing of the split, since its provenance does not count in its digest.
    read = dict.fromkeys([STARTS_FROM[name][1], "prepare_split"])
    return [_digest(context, done[step]) for step in read]


def _check_split(context: Context, done: dict[str, str]) -> None:
    """Make sure that `evaluate`, which takes its split from the run that it starts from, takes the split in `done`."""
    bundle, split = done["finetune"], done["prepare_split"]
    trained_on = context.client.get_run(bundle).data.tags["cxr.split_run_id"]
    if _digest(context, trained_on) != _digest(context, split):
        raise RuntimeError(f"run {bundle} was trained on the split of run {trained_on}, not on that of run {split}")


def _digest(context: Context, run_id: str) -> str:
    """Digest of the result of a run."""
    return str(context.client.get_run(run_id).data.tags["cxr.output_digest"])


def _parameters(context: Context, name: str) -> dict[str, str]:
    """Parameters of the command line that concern a step: its own and the common settings, profile and file."""
    parameters = {key: value for key, value in context.overrides.items() if owner(key) == name or is_common(key)}
    parameters["profile"] = context.flags.get("profile", DEFAULT_PROFILE)
    if name in reuse.RESUMABLE and "processes" in context.flags:
        parameters["processes"] = context.flags["processes"]
    if "params" in context.flags:
        parameters["params"] = str(Path(context.flags["params"]).resolve())
    return parameters
