"""A step that continues an earlier run logs everything there."""

import logging

import mlflow

from steps import train
from steps.runtime import process
from steps.runtime.context import Context


def open_run(client, experiment_id, **tags: str) -> str:
    return client.create_run(experiment_id, tags={f"cxr.{name}": value for name, value in tags.items()}).info.run_id


def test_a_run_that_is_continued_comes_from_the_runs_of_the_new_command(experiment_id, tmp_path):
    """After a dataset was moved, its split has another run, with the folder in which the images are now."""
    client = mlflow.MlflowClient()
    before = {"step": "train", "process": "elsewhere:1:1.0", "split_run_id": "old", "error": "no space left"}
    earlier = open_run(client, experiment_id, **before)
    client.set_terminated(earlier, "FAILED")
    launched = open_run(client, experiment_id, step="train", split_run_id="new")
    more = {"experiment_id": experiment_id, "client": client, "folder": tmp_path, "log": logging.getLogger("steps")}
    context = Context(step=train.STEP, flags={}, overrides={}, run_id=launched, **more)
    context.continue_run(client.get_run(earlier))
    assert context.run_id == earlier
    run = client.get_run(earlier)
    assert (run.info.status, run.data.tags["cxr.process"]) == ("RUNNING", process.identity())
    assert run.data.tags["cxr.split_run_id"] == "new"
    assert "cxr.error" not in run.data.tags
    assert client.get_run(launched).data.tags["cxr.resumes"] == earlier
