"""Work of `main`: launch every step as a child run, or reuse the run that already has its result."""

import os
import re
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import mlflow
from mlflow.exceptions import ExecutionException

from cxr.errors import CxrError
from cxr.settings import load
from steps.runtime import reuse, runs, step_key, supervisor
from steps.runtime.context import Context
from steps.runtime.settings import COMMON, DEFAULT_PROFILE, OWNED, PARAMS, owner
from steps.work import repeats
from steps.work.repeats import Repeats
from steps.work.summary import summary

# For each step, the parameter that names the run it starts from, and the step that this run is of.
STARTS_FROM = {
    "train": ("split_run_id", "prepare_split"),
    "finetune": ("train_run_id", "train"),
    "evaluate": ("run_id", "finetune"),
}


def run(context: Context) -> None:
    """Run or reuse every step, repeat the training from further seeds or on further folds, and print the summary."""
    may_reuse, ensemble = context.boolean("reuse", True), context.boolean("ensemble", False)
    plan = repeats.plan(context.settings, context.flags.get("seeds", "1"), context.overrides)
    if ensemble and len(plan) < 2:
        raise CxrError("ensemble=true needs several trainings; add -P seeds=5, or -P folds=5")
    supervisor.asked(context.flags)
    _check_classes(context)
    if context.settings.data.path == "sample":
        context.log.warning("SYNTHETIC DATA: the sample consists of phantoms; its scores say nothing about X-rays")
    elif context.flags.get("profile", DEFAULT_PROFILE) == DEFAULT_PROFILE:
        context.log.warning("profile %r is meant for the phantoms; for X-rays use -P profile=cpu", DEFAULT_PROFILE)
    done: dict[str, str] = {}
    for name in OWNED if not ensemble else list(OWNED)[:-1]:
        done[name] = _step(context, name, done, may_reuse, plan.overrides[0].get(name))
        context.tag(f"cxr.{name}_run_id", done[name])
    more_lines: list[str] = []
    if len(plan) > 1:
        more_lines = _repeat(context, done, plan, may_reuse, ensemble)
    text = summary(context.client, context.experiment_id, context.run_id, done, context.settings, more_lines)
    context.put_text(text, "summary.txt")
    print(text, flush=True)


def _repeat(context: Context, done: dict[str, str], plan: Repeats, may_reuse: bool, ensemble: bool) -> list[str]:
    """Repeat the first training, whose runs are in `done`, as planned; returns lines for the summary.

    The further bundles are scored but not registered. With `ensemble`, the ensemble of all bundles is registered, and
    its runs are added to `done`.
    """
    scores_only = {"registry.register": "false", "evaluate.robustness": "false"}
    finetuned, evaluated = [], []
    for number, overrides in enumerate(plan.overrides):
        repeated = dict(done)
        if number:
            first_changed = min(list(OWNED).index(name) for name in overrides)
            repeated = {name: done[name] for name in list(OWNED)[:first_changed]}
            for name in ("prepare_split", "train", "finetune")[first_changed:]:
                extra = {"survey_run_id": done[name]} if name == "prepare_split" else {}
                repeated[name] = _step(context, name, repeated, may_reuse, overrides.get(name), extra)
        finetuned.append(repeated["finetune"])
        if number or ensemble:
            repeated["evaluate"] = _step(context, "evaluate", repeated, may_reuse, scores_only)
        evaluated.append(repeated["evaluate"])
    scores = repeats.scores(context.client, evaluated, plan.metrics)
    context.metrics({f"{name}_mean": mean(values) for name, values in scores.items()})
    context.metrics({f"{name}_sd": stdev(values) for name, values in scores.items()})
    if ensemble:
        parameters = {key: value for key, value in context.overrides.items() if _is_common(key)}
        done["ensemble"] = _launch(context, "ensemble", {**parameters, "run_ids": ",".join(finetuned)})
        done["evaluate"] = _step(context, "evaluate", {**done, "finetune": done["ensemble"]}, may_reuse)
        for name in ("ensemble", "evaluate"):
            context.tag(f"cxr.{name}_run_id", done[name])
    return repeats.lines(scores, plan)


def _step(
    context: Context,
    name: str,
    done: dict[str, str],
    may_reuse: bool,
    overrides: dict[str, Any] | None = None,
    extra: dict[str, str] | None = None,
) -> str:
    """Reuse or run one step; returns the ID of the run that holds its result.

    `overrides` are settings on top of those of the command line, `extra` other parameters, which change no result.
    """
    parameters = {**_parameters(context, name), **(overrides or {}), **(extra or {})}
    if name in STARTS_FROM:
        parameter, previous = STARTS_FROM[name]
        parameters[parameter] = done[previous]
    settings = load.resolve(context.settings.to_dict(), overrides)
    decision = reuse.Decision("reuse=false")
    if may_reuse:
        decision = reuse.decide(context.client, context.experiment_id, name, settings, _inputs(context, name, done))
    if decision.run is not None:
        context.log.info("%s: reused run %s, %s", name, decision.run.info.run_id, decision.why)
        return decision.run.info.run_id
    if decision.resume is not None:
        parameters["resume"] = decision.resume.info.run_id
        context.log.info("%s: resuming, %s", name, decision.why)
    else:
        context.log.info("%s: running, %s", name, decision.why)
    return _launch(context, name, parameters)


def _inputs(context: Context, name: str, done: dict[str, str]) -> list[str]:
    """Digests of what a step reads: the data for the first step, results of earlier steps for the others."""
    if name not in STARTS_FROM:
        return [step_key.data_fingerprint(context.settings.data)]
    read = [STARTS_FROM[name][1]] + (["prepare_split"] if name == "evaluate" else [])
    return [context.client.get_run(done[step]).data.tags["cxr.output_digest"] for step in read]


def _parameters(context: Context, name: str) -> dict[str, str]:
    """Parameters of the command line that concern a step: its own and the common settings, profile and file."""
    parameters = {key: value for key, value in context.overrides.items() if owner(key) == name or _is_common(key)}
    parameters["profile"] = context.flags.get("profile", DEFAULT_PROFILE)
    if name in reuse.RESUMABLE and "processes" in context.flags:
        parameters["processes"] = context.flags["processes"]
    if "params" in context.flags:
        parameters["params"] = str(Path(context.flags["params"]).resolve())
    return parameters


def _is_common(key: str) -> bool:
    """Whether every step has the setting `key`."""
    return owner(key) is None and key.split(".", maxsplit=1)[0] in COMMON


def _launch(context: Context, name: str, parameters: dict[str, str]) -> str:
    """Run a step as an MLflow project; returns the ID of its run, or of the run that it resumed."""
    # env_manager="local" takes the python on PATH: make sure that it is the one that runs the driver.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        submitted = mlflow.projects.run(
            uri=str(PARAMS.parent),
            entry_point=name,
            parameters=parameters,
            env_manager="local",
            experiment_id=context.experiment_id,
            run_name=name,
            storage_dir=str(context.folder / "projects"),  # MLflow makes a folder there, and never removes it
        )
    except ExecutionException as error:
        run_id = re.search(r"[0-9a-f]{32}", str(error))
        cause = context.client.get_run(run_id[0]).data.tags.get("cxr.error") if run_id else None
        if cause is None and run_id is not None:  # it never came to say so
            runs.tidy(context.client, run_id[0])
            cause = "it ended without a message (was it killed, or out of memory?); start again to go on from there"
        raise CxrError(f"step {name} failed: {cause or error}") from None
    step_run = context.client.get_run(submitted.run_id)
    return step_run.data.tags.get("cxr.resumes", step_run.info.run_id)


def _check_classes(context: Context) -> None:
    """Check the network and the `_target_` classes that differ from the shipped ones before any step runs."""
    shipped = load.load_settings(PARAMS)
    if context.settings.model != shipped.model:
        from cxr.models import build  # imports torch, which the driver rarely needs

        build.check(context.settings.model)
    for section in ("train", "finetune", "evaluate"):
        current, default = getattr(context.settings, section), getattr(shipped, section)
        for name in ("loss", "optimizer", "scheduler", "metric"):
            target = getattr(current, name, None)
            if target is not None and target != getattr(default, name):
                from cxr.settings import instantiate  # imports torch, which the driver rarely needs

                instantiate.check(target)
