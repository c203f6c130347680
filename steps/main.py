"""The whole workflow: prepare_split, train, finetune, evaluate, each an MLflow run below this one.

Reads params.yaml and the overrides; leaves nothing of its own but `summary.txt` and the IDs of the four runs. A step
whose key (see `steps.runtime.step_key`) has not changed is reused, an interrupted training is resumed.

    mlflow run . -e main -P data_path=FOLDER -P profile=cpu
"""

import os
import re
import sys
from pathlib import Path
from statistics import mean, stdev

from cxr.errors import CxrError
from cxr.settings import load
from steps.runtime import reuse, step_key
from steps.runtime.cli import Step
from steps.runtime.context import Context
from steps.runtime.runner import main
from steps.runtime.settings import COMMON, DEFAULT_PROFILE, OWNED, PARAMS, owner
from steps.work import seeds
from steps.work.summary import summary

STEP = Step(
    name="main",
    about="Split, train, fine-tune, evaluate and register, reusing what has not changed.",
    short={"data_path": "data.path", "epochs": "train.epochs finetune.epochs", "lr": "train.optimizer.lr"},
    flags={
        "reuse": "true | false: false runs every step anew",
        "seeds": "repeat train and finetune from so many seeds, and tell mean and spread; default: 1",
        "ensemble": "true | false: with seeds, register their ensemble instead of the first; default: false",
    },
)
# The run that each step starts from, by the name of its parameter.
STARTS_FROM = {"train": ("split_run_id", "prepare_split"), "finetune": ("train_run_id", "train")}
STARTS_FROM["evaluate"] = ("run_id", "finetune")


def work(context: Context) -> None:
    may_reuse, ensemble = context.yes("reuse", True), context.yes("ensemble", False)
    repeats = seeds.count(context.flags.get("seeds", "1"))
    if ensemble and repeats < 2:
        raise CxrError("ensemble=true needs several trainings; give -P seeds=5 as well")
    _check_targets(context)
    if context.settings.data.path == "sample":
        context.log.warning("SYNTHETIC DATA: the sample is drawn phantoms; its scores say nothing about X-rays")
    elif context.flags.get("profile", DEFAULT_PROFILE) == DEFAULT_PROFILE:
        context.log.warning("profile %r is made for the phantoms; give real X-rays -P profile=cpu", DEFAULT_PROFILE)
    done: dict[str, str] = {}
    for name in OWNED if not ensemble else list(OWNED)[:-1]:
        done[name] = _step(context, name, done, may_reuse)
        context.tag(f"cxr.{name}_run_id", done[name])
    more: list[str] = []
    if repeats > 1:
        more = _repeat(context, done, repeats, may_reuse, ensemble)
    text = summary(context.client, context.experiment_id, context.run_id, done, context.settings, more)
    context.put_text(text, "summary.txt")
    print(text, flush=True)


def _repeat(context: Context, done: dict[str, str], count: int, may_reuse: bool, ensemble: bool) -> list[str]:
    """Train, fine-tune and evaluate from further seeds on the same split; returns lines for the summary.

    These are scored and not registered. With `ensemble`, the ensemble of all is, and `done` tells of it.
    """
    first = context.settings.seed
    silent = {"registry.register": "false", "evaluate.robustness": "false"}
    finetuned, evaluated = [], []
    for seed in range(first, first + count):
        own = {name: done[name] for name in ("prepare_split", *(("train", "finetune") if seed == first else ()))}
        for name in ("train", "finetune"):
            if name not in own:
                own[name] = _step(context, name, own, may_reuse, {"seed": str(seed)})
        finetuned.append(own["finetune"])
        own_evaluation = done["evaluate"] if seed == first and not ensemble else None
        evaluated.append(own_evaluation or _step(context, "evaluate", own, may_reuse, silent))
    found = seeds.spread(context.client, evaluated)
    context.metrics({f"{name}_{what}": measure(values) for name, values in found.items()
                     for what, measure in (("mean", mean), ("sd", stdev))})  # fmt: skip
    if ensemble:
        parameters = {k: v for k, v in context.overrides.items() if owner(k) is None and k.split(".")[0] in COMMON}
        done["ensemble"] = _launch(context, "ensemble", {**parameters, "run_ids": ",".join(finetuned)})
        done["evaluate"] = _step(context, "evaluate", {**done, "finetune": done["ensemble"]}, may_reuse)
        for name in ("ensemble", "evaluate"):
            context.tag(f"cxr.{name}_run_id", done[name])
    return seeds.lines(found, list(range(first, first + count)))


def _step(
    context: Context, name: str, done: dict[str, str], may_reuse: bool, more: dict[str, str] | None = None
) -> str:
    """Reuse or run one step, with `more` settings than were typed; returns the ID of the run that holds its result."""
    parameters = {**_parameters(context, name), **(more or {})}
    if name in STARTS_FROM:
        parameter, before = STARTS_FROM[name]
        parameters[parameter] = done[before]
    settings = load.resolve(context.settings.to_dict(), more)
    decision = reuse.Decision("reuse=false")
    if may_reuse:
        decision = reuse.decide(context.client, context.experiment_id, name, settings, _inputs(context, name, done))
    if decision.run is not None:
        context.log.info("%s: reused run %s, %s", name, decision.run.info.run_id, decision.why)
        return decision.run.info.run_id
    if decision.resume is not None:
        parameters["resume"] = decision.resume.info.run_id
        context.log.info("%s: goes on, %s", name, decision.why)
    else:
        context.log.info("%s: runs, %s", name, decision.why)
    return _launch(context, name, parameters)


def _inputs(context: Context, name: str, done: dict[str, str]) -> list[str]:
    """Digests of what a step reads: the data for the first, the result of the step before for the others."""
    if name not in STARTS_FROM:
        return [step_key.data_fingerprint(context.settings.data)]
    before = context.client.get_run(done[STARTS_FROM[name][1]])
    return [before.data.tags["cxr.output_digest"]]


def _parameters(context: Context, name: str) -> dict[str, str]:
    """The step's share of what was typed: its own settings, those that all steps have, profile and file."""
    given = {
        key: value
        for key, value in context.overrides.items()
        if owner(key) == name or (owner(key) is None and key.split(".")[0] in COMMON)
    }
    given["profile"] = context.flags.get("profile", DEFAULT_PROFILE)
    if "params" in context.flags:
        given["params"] = str(Path(context.flags["params"]).resolve())
    return given


def _launch(context: Context, name: str, parameters: dict[str, str]) -> str:
    import mlflow
    from mlflow.exceptions import ExecutionException

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
        )
    except ExecutionException as error:
        found = re.search(r"[0-9a-f]{32}", str(error))
        cause = context.client.get_run(found[0]).data.tags.get("cxr.error") if found else None
        raise CxrError(f"step {name} failed: {cause or error}") from None
    run = context.client.get_run(submitted.run_id)
    return run.data.tags.get("cxr.resumes", run.info.run_id)


def _check_targets(context: Context) -> None:
    """Check classes that differ from the shipped ones now, not after the split; importing them takes seconds."""
    shipped = load.load_settings(PARAMS)
    for section in ("train", "finetune", "evaluate"):
        ours, theirs = getattr(context.settings, section), getattr(shipped, section)
        for name in ("loss", "optimizer", "scheduler", "metric"):
            target = getattr(ours, name, None)
            if target is not None and target != getattr(theirs, name):
                from cxr.settings import instantiate

                instantiate.check(target)


if __name__ == "__main__":
    main(STEP, work)
