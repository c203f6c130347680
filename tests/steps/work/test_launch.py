"""How `main` tells the failure of a step."""

import types

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from cxr.errors import CxrError
from steps.work import main as work


@pytest.mark.parametrize(
    "tags, words",
    [
        ({"cxr.error": "no such folder; name one"}, "step train failed: no such folder; name one"),
        ({}, "step train failed: it ended without a message (was it killed, or out of memory?); start again"),
    ],
    ids=["its own message", "killed"],
)
def test_a_failed_step_is_told_in_one_line(experiment_id, monkeypatch, tags, words):
    client = mlflow.MlflowClient()
    run = client.create_run(experiment_id, tags={"cxr.step": "train", **tags})

    def failed(**_):
        raise ExecutionException(f"Run (ID '{run.info.run_id}') failed")

    monkeypatch.setattr(mlflow.projects, "run", failed)
    context = types.SimpleNamespace(client=client, experiment_id=experiment_id)
    with pytest.raises(CxrError) as error:
        work._launch(context, "train", {})
    assert str(error.value).startswith(words)
