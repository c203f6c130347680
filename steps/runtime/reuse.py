"""Is there a run that already did this? Finished ones are reused, interrupted trainings are gone on with."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.settings.schema import Settings
from steps.runtime import runs, step_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# What a finished run of a step must still have for the next step to start from it.
RESULT = {
    "prepare_split": "split/manifest.csv",
    "train": "bundle/config.json",
    "finetune": "bundle/config.json",
    "evaluate": "evaluation/scores.json",
}
RESUMABLE = ("train", "finetune")


@dataclass(frozen=True)
class Decision:
    """What to do about a step: `run` is reused, or `resume` is gone on with, or the step runs; and why."""

    why: str
    run: "Run | None" = None
    resume: "Run | None" = None


def decide(client: "MlflowClient", experiment_id: str, step: str, settings: Settings, inputs: list[str]) -> Decision:
    """Look for a run of `step` with the same key; `inputs` are the digests of what the step would read."""
    parts = step_key.components(step, settings, inputs)
    same = f"tags.`cxr.step` = '{step}' and tags.`cxr.step_key` = '{step_key.key(parts)}'"
    for run in runs.search(client, experiment_id, same, "FINISHED"):
        lost = _lost(client, run, step)
        return Decision(f"its result is gone ({lost})") if lost else Decision("nothing has changed", run=run)
    if step in RESUMABLE:
        for status in ("KILLED", "FAILED"):
            for run in runs.search(client, experiment_id, same, status, 1):
                if _has(client, run, "checkpoint/last.pt"):
                    return Decision(f"run {run.info.run_id} was interrupted", resume=run)
    last = runs.newest(client, experiment_id, (step,))
    if last is None:
        return Decision("no finished run of it yet")
    changed = [name for name in step_key.COMPONENTS if last.data.tags.get(f"cxr.key.{name}") != parts[name]]
    return Decision(
        f"changed since the last run: {', '.join(changed)}" if changed else "its last run was of another key"
    )


def _lost(client: "MlflowClient", run: "Run", step: str) -> str | None:
    root = run.data.tags.get("cxr.data_root")
    if root and not Path(root).is_dir():
        return root
    return None if _has(client, run, RESULT[step]) else RESULT[step]


def _has(client: "MlflowClient", run: "Run", artifact: str) -> bool:
    from mlflow.exceptions import MlflowException

    folder = artifact.rsplit("/", 1)[0]
    try:
        return artifact in {file.path for file in client.list_artifacts(run.info.run_id, folder)}
    except (MlflowException, OSError):
        return False
