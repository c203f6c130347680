"""Trials of a search as runs in the MLflow store, which is all that is kept of a study.

A trial is a run below that of its search, tagged `cxr.step` = `trial`, and the runs of its steps are below it. Tags:
`cxr.study`, `cxr.trial.engine`, `cxr.trial.number`, `cxr.trial.values` (the settings that it tries, as JSON),
`cxr.trial.state` once it has ended, `cxr.trial.seen` (seconds since 1970: when its search last followed it), and
`cxr.trial.same.*` (digests of what all trials of a study share). Metrics: `val_metric` by epoch, and `score`.
"""

import json
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from mlflow.entities import Run, RunTag, ViewType

from cxr.search.study import State, Trial
from steps.runtime import process
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow import MlflowClient

STALE_S = 900  # a trial of another machine that was not seen for so long has lost its search
_SAME = "cxr.trial.same."


def known(context: Context, study: str, before: list[Trial] | None = None) -> list[Trial]:
    """The trials of a study, in the order in which they began; those that `before` has as ended are not read again."""
    ended = {trial.key: trial for trial in before or [] if trial.state != "running"}
    return [ended.get(run.info.run_id) or _trial(context.client, run) for run in _runs(context, study)]


def different(context: Context, study: str, shared: dict[str, str]) -> tuple[int, list[str]]:
    """Number of trials of a study, and in what of `shared` (digests by name) any of them differs."""
    found = _runs(context, study)
    tags = [run.data.tags for run in found]
    return len(found), [name for name, value in shared.items() if any(t.get(_SAME + name) != value for t in tags)]


def begin(context: Context, number: int, values: dict[str, Any], shared: dict[str, str]) -> str:
    """Open the run of a new trial; returns its ID."""
    tags = _tags(context, number, values, shared) | {"mlflow.parentRunId": context.run_id}
    run = context.client.create_run(context.experiment_id, tags=tags)
    for name, value in values.items():  # for the tables and plots of MLflow's page
        context.client.log_param(run.info.run_id, name, value)
    return str(run.info.run_id)


def adopt(context: Context, run_id: str, number: int, values: dict[str, Any], shared: dict[str, str]) -> None:
    """Make a run that MLflow's storage for Optuna has opened, and given its parameters, one of a trial."""
    tags = _tags(context, number, values, shared)
    context.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _tags(context: Context, number: int, values: dict[str, Any], shared: dict[str, str]) -> dict[str, str]:
    search = context.settings.search
    tags = {
        "mlflow.runName": f"trial {number}",
        "cxr.step": "trial",
        "cxr.process": process.identity(),
        "cxr.study": search.study,
        "cxr.trial.engine": search.engine,
        "cxr.trial.number": str(number),
        "cxr.trial.values": json.dumps(values),
        "cxr.trial.seen": f"{time.time():.0f}",
    }
    return tags | {_SAME + name: value for name, value in shared.items()}


def seen(context: Context, run_id: str) -> None:
    """Note that a trial is still followed."""
    context.client.set_tag(run_id, "cxr.trial.seen", f"{time.time():.0f}")


def log_epoch(context: Context, run_id: str, epoch: int, score: float) -> None:
    """Keep the validation metric of a trial after an epoch."""
    context.client.log_metric(run_id, "val_metric", score, step=epoch)


def end(context: Context, run_id: str, state: State, score: float | None = None, reason: str | None = None) -> None:
    """Note how a trial ended, and close its run."""
    note(context, run_id, state, score, reason)
    status = {"complete": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
    context.client.set_terminated(run_id, status)


def note(context: Context, run_id: str, state: State, score: float | None = None, reason: str | None = None) -> None:
    """Note how a trial ended; a score is there before the state that says so."""
    if score is not None:
        context.client.log_metric(run_id, "score", score)
    if reason is not None:
        context.client.set_tag(run_id, "cxr.error", reason[:4000])
    context.client.set_tag(run_id, "cxr.trial.state", state)


def engines(context: Context, study: str) -> set[str]:
    """The engines of a study's trials; those of before there was more than one have no tag."""
    return {run.data.tags.get("cxr.trial.engine", "local") for run in _runs(context, study)}


def end_lost(context: Context, study: str) -> int:
    """Mark trials as interrupted whose search is gone; returns how many there were.

    `steps.runtime.runs.mark_abandoned` has ended those of this machine; one of another machine is lost when nobody has
    followed it for `STALE_S`.
    """
    lost = 0
    for run in _runs(context, study):
        if "cxr.trial.state" in run.data.tags:
            continue
        if run.info.status == "RUNNING" and time.time() - float(run.data.tags["cxr.trial.seen"]) < STALE_S:
            continue
        context.client.set_tag(run.info.run_id, "cxr.note", "marked by a later search: its own was gone")
        end(context, run.info.run_id, "interrupted")
        lost += 1
    return lost


def training(context: Context, run_id: str, step: str) -> str | None:
    """ID of the run of a trial's `step` that is at work, if any."""
    query = f"tags.`mlflow.parentRunId` = '{run_id}' and tags.`cxr.step` = '{step}' and attributes.status = 'RUNNING'"
    found = context.client.search_runs([context.experiment_id], query, ViewType.ACTIVE_ONLY, 1)
    return found[0].info.run_id if found else None


def epochs(client: "MlflowClient", run_id: str) -> dict[int, float]:
    """The validation metric of a run after each epoch, from 1 on; what is not finite is left out."""
    history = client.get_metric_history(run_id, "val_metric")
    return {m.step: m.value for m in sorted(history, key=lambda m: m.step) if m.step and is_finite(m.value)}


def is_finite(value: float) -> bool:
    """Whether a metric of the store is finite; in place of an infinite one, MLflow keeps the largest float there is."""
    return math.isfinite(value) and abs(value) < sys.float_info.max / 2


def _runs(context: Context, study: str) -> list[Run]:
    query = f"tags.`cxr.step` = 'trial' and tags.`cxr.study` = '{study}'"
    order = ["attributes.start_time ASC"]
    return list(context.client.search_runs([context.experiment_id], query, ViewType.ACTIVE_ONLY, 10_000, order))


def _trial(client: "MlflowClient", run: Run) -> Trial:
    tags = run.data.tags
    state: Any = tags.get("cxr.trial.state", "running" if run.info.status == "RUNNING" else "interrupted")
    return Trial(
        key=run.info.run_id,
        number=int(tags["cxr.trial.number"]),
        state=state,
        values=json.loads(tags["cxr.trial.values"]),
        score=run.data.metrics.get("score") if state == "complete" else None,
        epochs=epochs(client, run.info.run_id),
    )
