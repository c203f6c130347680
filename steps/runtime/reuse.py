"""Decide whether a step runs: a finished run with the same key is reused, an interrupted training is resumed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxr.common.storage import place
from cxr.settings.schema import Settings
from steps.runtime import runs, step_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Artifact that a finished run of a step must still have for the next step to start from it.
RESULT = {
    "prepare_split": "split/manifest.csv",
    "train": "bundle/config.json",
    "finetune": "bundle/config.json",
    "evaluate": "evaluation/scores.json",
}
RESUMABLE = ("train", "finetune")


@dataclass(frozen=True)
class Decision:
    """What to do about a step: reuse `run`, resume `resume`, or run the step if both are None.

    Attributes:
        why: reason, for the log.
        run: finished run to reuse.
        resume: interrupted run to resume.
    """

    why: str
    run: "Run | None" = None
    resume: "Run | None" = None


def decide(client: "MlflowClient", experiment_id: str, step: str, settings: Settings, inputs: list[str]) -> Decision:
    """Look for a run of `step` with the same key; `inputs` are the digests of what the step would read."""
    components = step_key.components(step, settings, inputs)
    same_key = f"tags.`cxr.step` = '{step}' and tags.`cxr.step_key` = '{step_key.key(components)}'"
    finished = runs.search(client, experiment_id, same_key, "FINISHED", 1)
    if finished:
        missing = _missing(client, finished[0], step)
        if missing:
            return Decision(f"its result is gone ({missing})")
        return Decision("nothing has changed", run=finished[0])
    if step in RESUMABLE:
        for status in ("KILLED", "FAILED"):
            for run in runs.search(client, experiment_id, same_key, status, 1):
                if runs.has_artifact(client, run.info.run_id, "checkpoint/last.pt"):
                    return Decision(f"run {run.info.run_id} was interrupted", resume=run)
    last = runs.search(client, experiment_id, f"tags.`cxr.step` = '{step}'", "FINISHED", 1)
    if not last:
        return Decision("no finished run yet")
    changed = [name for name in step_key.COMPONENTS if last[0].data.tags.get(f"cxr.key.{name}") != components[name]]
    return Decision(f"changed since the last run: {', '.join(changed)}" if changed else "its last run had another key")


def _missing(client: "MlflowClient", run: "Run", step: str) -> str | None:
    """What is missing of the result of a finished run, or of the split that it was trained on, if anything.

    A step that starts from a training reads its images by way of that split.
    """
    if step in RESUMABLE:
        split = runs.known(client, run.data.tags["cxr.split_run_id"])
        if split is None:
            return "its split is not in the store"
        if missing := _missing(client, split, "prepare_split"):
            return missing
    root = run.data.tags.get("cxr.data_root")
    if root and not place(root).is_dir():
        return root
    return None if runs.has_artifact(client, run.info.run_id, RESULT[step]) else RESULT[step]
