"""How drivers launch a step and tell its failure."""

import tempfile
import types

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from cxr.errors import CxrError
from steps.work import launching


@pytest.mark.parametrize(
    "tags, words",
    [
        ({"cxr.error": "no such folder; name one"}, "step train failed: no such folder; name one"),
        ({}, "step train failed: it ended without a message (was it killed, or out of memory?); start again"),
    ],
    ids=["its own message", "killed"],
)
def test_a_failed_step_is_told_in_one_line(experiment_id, monkeypatch, tmp_path, tags, words):
    client = mlflow.MlflowClient()
    run = client.create_run(experiment_id, tags={"cxr.step": "train", **tags})

    def failed(**_):
        raise ExecutionException(f"Run (ID '{run.info.run_id}') failed")

    monkeypatch.setattr(mlflow.projects, "run", failed)
    context = types.SimpleNamespace(client=client, experiment_id=experiment_id, folder=tmp_path)
    with pytest.raises(CxrError) as error:
        launching.launch(context, "train", {})
    assert str(error.value).startswith(words)


def test_a_launch_leaves_no_folder_behind(experiment_id, monkeypatch, tmp_path):
    """MLflow makes a folder for every project that it runs, and never removes it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    project = tmp_path / "project"
    project.mkdir()
    (project / "MLproject").write_text("name: x\nentry_points: {train: {command: 'true'}}")
    monkeypatch.setattr(launching, "PARAMS", project / "params.yaml")
    context = types.SimpleNamespace(client=mlflow.MlflowClient(), experiment_id=experiment_id, folder=tmp_path / "own")
    run_id = launching.launch(context, "train", {})
    assert context.client.get_run(run_id).info.status == "FINISHED"
    assert not list((tmp_path / "temporary").iterdir())
