"""Runs in the MLflow store: find the run that a step starts from, and mark runs that a crash left behind.

Tags that this project sets: `cxr.step` (entry point), `cxr.process` (process that works on the run),
`cxr.output_digest` (digest of its result), `cxr.step_key` and `cxr.key.*` (what decides its result, see
`steps.runtime.step_key`), `cxr.*_run_id` (runs that it came from), `cxr.trial` (trial of a search that it belongs to),
`cxr.folds` (number of folds that a run of `main` goes through), `cxr.fold` (that run of `main`, of a run of a fold).
"""

import logging
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from cxr.common.files import remove_half_written
from cxr.errors import CxrError
from steps.runtime import process

log = logging.getLogger(__name__)

# Stands for a run without the tag `cxr.process`: `process.alive` leaves processes of other hosts alone.
_UNKNOWN = "?:0:0"
TRIAL, FOLDS, FOLD = "cxr.trial", "cxr.folds", "cxr.fold"
# MLflow's codes for what is not there: a run, a model or a version; what has a name that MLflow refuses, or an alias.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def newest(client: MlflowClient, experiment_id: str, kinds: tuple[str, ...]) -> Run | None:
    """The finished run of one of these steps that was started last; trials of a search and folds are left out."""
    single = f"tags.`{TRIAL}` IS NULL and tags.`{FOLD}` IS NULL"
    candidates = [
        run
        for kind in kinds
        for run in search(client, experiment_id, f"tags.`cxr.step` = '{kind}' and {single}", "FINISHED", limit=1)
    ]
    return max(candidates, key=lambda run: run.info.start_time, default=None)


def search(client: MlflowClient, experiment_id: str, where: str, status: str, limit: int = 1000) -> list[Run]:
    """Runs of one experiment with this status that match the filter `where`, newest first."""
    query = " and ".join(part for part in (f"attributes.status = '{status}'", where) if part)
    order = ["attributes.start_time DESC"]
    return list(client.search_runs([experiment_id], query, ViewType.ACTIVE_ONLY, limit, order))


def find(client: MlflowClient, experiment_id: str, kinds: tuple[str, ...], run_id: str, parameter: str) -> Run:
    """The run `run_id`, if it is a finished run of one of `kinds`; without an ID, the newest such run."""
    command, expected = f"mlflow run . -e {kinds[0]}", " or ".join(kinds)
    if not run_id:
        run = newest(client, experiment_id, kinds)
        if run is None:
            others = any(search(client, experiment_id, f"tags.`cxr.step` = '{kind}'", "FINISHED", 1) for kind in kinds)
            but = " but those of folds and of trials of a search" if others else ""
            raise CxrError(
                f"no finished {expected} run in this experiment{but}; run `{command}` first, or give {parameter}"
            )
        return run
    run = known(client, run_id)
    if run is None:
        store = mlflow.get_tracking_uri()
        raise CxrError(f"{parameter}={run_id}: no run with this ID in {store}; run `{command}` first")
    kind = run.data.tags.get("cxr.step")
    if kind not in kinds:
        seen = f"a run of {kind!r}" if kind else "a run of no step of this project"
        raise CxrError(f"{parameter}={run_id}: expected a run of {expected}, got {seen}")
    if run.info.status != "FINISHED":
        status = run.info.status
        raise CxrError(f"{parameter}={run_id}: expected a finished run, got one that is {status}; run `{command}`")
    return run


def known(client: MlflowClient, run_id: str) -> Run | None:
    """A run by its ID; None if the store does not have it. Any other error of the store is raised."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        return None


def artifact_folder(client: MlflowClient, run_id: str) -> Path | None:
    """Folder with the artifacts of a run, if it is on this machine."""
    uri = client.get_run(run_id).info.artifact_uri
    return Path(local_file_uri_to_path(uri)) if is_local_uri(uri) else None


def has_artifact(client: MlflowClient, run_id: str, path: str) -> bool:
    """Whether a run still has the artifact `path`, a file in a folder."""
    try:
        return path in {file.path for file in client.list_artifacts(run_id, path.rpartition("/")[0])}
    except (MlflowException, OSError):
        return False


def tidy(client: MlflowClient, run_id: str) -> None:
    """Remove the half-written artifacts of a run whose process was killed."""
    folder = artifact_folder(client, run_id)
    if folder is not None:
        remove_half_written(folder)


def mark_abandoned(client: MlflowClient, experiment_id: str) -> list[str]:
    """Mark runs as KILLED that are RUNNING in the store while their process is gone; returns their IDs."""
    running = {run.info.run_id: run for run in search(client, experiment_id, "", "RUNNING")}
    dead = [run_id for run_id, run in running.items() if not process.alive(run.data.tags.get("cxr.process", _UNKNOWN))]
    # A step that its driver launched but that never came to tag its process ends with the driver.
    dead += [
        run_id
        for run_id, run in running.items()
        if "cxr.process" not in run.data.tags and run.data.tags.get("mlflow.parentRunId") in dead
    ]
    for run_id in dead:
        tidy(client, run_id)
        client.set_tag(run_id, "cxr.note", "marked by a later run: its process was gone")
        client.set_terminated(run_id, "KILLED")
        log.warning("run %s was left RUNNING by a process that is gone; marked it as KILLED", run_id)
    return dead


def lineage(tags: dict[str, str]) -> dict[str, str]:
    """The tags `cxr.*_run_id` among the tags of a run or of a registered version."""
    return {name: value for name, value in tags.items() if name.startswith("cxr.") and name.endswith("_run_id")}


def runs_behind(tags: dict[str, str]) -> dict[str, str]:
    """IDs of the runs that a run or a registered version came from, by step, from its tags."""
    return {name.removeprefix("cxr.").removesuffix("_run_id"): run_id for name, run_id in lineage(tags).items()}
