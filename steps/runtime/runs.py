"""Runs in the MLflow store: find the one a step starts from, check it, mark those that a crash left behind.

Tags that this project sets: `cxr.step` (entry point), `cxr.process` (who works on it), `cxr.output_digest` (what it
made), `cxr.step_key` and `cxr.key.*` (what it was made from, see `steps.runtime.step_key`),
`cxr.*_run_id` (where it came from).
"""

import logging

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from cxr.errors import CxrError
from steps.runtime import process

log = logging.getLogger("cxr.runs")


def newest(client: MlflowClient, experiment_id: str, kinds: tuple[str, ...]) -> Run | None:
    """The finished run of one of these steps that was started last."""
    found = [r for kind in kinds for r in search(client, experiment_id, f"tags.`cxr.step` = '{kind}'", "FINISHED", 1)]
    return max(found, key=lambda run: run.info.start_time, default=None)


def search(client: MlflowClient, experiment_id: str, where: str, status: str, limit: int = 1000) -> list[Run]:
    """Runs of one experiment and status that fulfil `where`, the newest first."""
    query = " and ".join(part for part in (f"attributes.status = '{status}'", where) if part)
    order = ["attributes.start_time DESC"]
    return list(client.search_runs([experiment_id], query, ViewType.ACTIVE_ONLY, limit, order))


def find(client: MlflowClient, experiment_id: str, kinds: tuple[str, ...], run_id: str, parameter: str) -> Run:
    """The run `run_id`, checked to be a finished run of one of `kinds`; without an ID, the newest such run."""
    command = f"mlflow run . -e {kinds[0]}"
    if not run_id:
        run = newest(client, experiment_id, kinds)
        if run is None:
            raise CxrError(
                f"no finished {' or '.join(kinds)} run in this experiment; run `{command}` first, or give {parameter}"
            )
        return run
    try:
        run = client.get_run(run_id)
    except MlflowException:
        raise CxrError(f"{parameter}={run_id}: there is no such run in {_store()}; run `{command}` first") from None
    kind = run.data.tags.get("cxr.step", "no")
    if kind not in kinds:
        raise CxrError(f"{parameter}={run_id} is a run of {kind!r}; needed is one of {' or '.join(kinds)}")
    if run.info.status != "FINISHED":
        raise CxrError(f"{parameter}={run_id} is {run.info.status}; needed is a finished run: `{command}` makes one")
    return run


def mark_abandoned(client: MlflowClient, experiment_id: str) -> list[str]:
    """Mark as KILLED what is still RUNNING in the store though its process is gone; returns the run IDs."""
    running = {run.info.run_id: run for run in search(client, experiment_id, "", "RUNNING")}
    dead = [run_id for run_id, run in running.items() if not process.alive(run.data.tags.get("cxr.process", _UNKNOWN))]
    # A step that its driver launched, but that never came so far as to say who it is, ends with the driver.
    dead += [
        run_id
        for run_id, run in running.items()
        if "cxr.process" not in run.data.tags and run.data.tags.get("mlflow.parentRunId") in dead
    ]
    for run_id in dead:
        client.set_tag(run_id, "cxr.note", "marked at a later start: its process was gone")
        client.set_terminated(run_id, "KILLED")
        log.warning("run %s was left RUNNING by a process that is gone: marked KILLED", run_id)
    return dead


_UNKNOWN = "?:0:0"  # a process of no host of ours: `process.alive` leaves such runs alone


def _store() -> str:
    import mlflow

    return mlflow.get_tracking_uri()
