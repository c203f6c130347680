"""How drivers launch a step and tell its failure."""

import logging
import tempfile
import types

import mlflow
import pytest
from mlflow.exceptions import ExecutionException

from cxr.common import files
from cxr.errors import CxrError
from steps.runtime import reuse, step_key
from steps.runtime.context import Context
from steps.work import launching, main
from tests.helpers import settings_with


@pytest.fixture
def failure(experiment_id, monkeypatch, tmp_path):
    """Function that launches a step which fails as the run of an ID, and returns what is told of it."""

    def launch(run_id: str) -> str:
        def failed(**_):
            raise ExecutionException(f"Run (ID '{run_id}') failed")

        monkeypatch.setattr(mlflow.projects, "run", failed)
        context = types.SimpleNamespace(client=mlflow.MlflowClient(), experiment_id=experiment_id, folder=tmp_path)
        with pytest.raises(CxrError) as told:
            launching.launch(context, "train", {})
        return str(told.value)

    return launch


@pytest.mark.parametrize(
    "tags, words",
    [
        ({"cxr.error": "no such folder; name one"}, "step train failed: no such folder; name one"),
        ({}, "step train failed: it ended without a message (was it killed, or out of memory?); start again"),
    ],
    ids=["its own message", "killed"],
)
def test_a_failed_step_is_told_in_one_line(experiment_id, failure, tags, words):
    client = mlflow.MlflowClient()
    run = client.create_run(experiment_id, tags={"cxr.step": "train", **tags})

    assert failure(run.info.run_id).startswith(words)


@pytest.mark.parametrize(
    "error, words",
    [
        ({"cxr.error": "x.png has changed"}, "step train failed: x.png has changed"),
        ({}, "step train failed: it ended without a message"),
    ],
    ids=["its own message", "killed"],
)
def test_a_resumed_training_that_fails_tells_why_in_its_own_run(experiment_id, failure, error, words):
    client = mlflow.MlflowClient()
    resumed = client.create_run(experiment_id, tags={"cxr.step": "train", **error}).info.run_id
    launched = client.create_run(experiment_id, tags={"cxr.resumes": resumed}).info.run_id
    client.log_text(resumed, "half", f"checkpoint/.last.pt{files._HALF}")

    assert failure(launched).startswith(words)
    assert bool(client.list_artifacts(resumed, "checkpoint")) == bool(error)  # tidied if it was killed


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


@pytest.fixture
def driver(experiment_id, tmp_path, monkeypatch):
    """Context of a driver whose launches are only noted, in `launched`."""
    launched: list[tuple[str, dict]] = []
    monkeypatch.setattr(launching, "launch", lambda _, name, parameters: launched.append((name, parameters)) or "new")
    return types.SimpleNamespace(
        client=mlflow.MlflowClient(),
        experiment_id=experiment_id,
        folder=tmp_path,
        settings=settings_with({}),
        flags={},
        overrides={},
        step=types.SimpleNamespace(name="main"),
        log=logging.getLogger("steps.main"),
        launched=launched,
    )


def finished(context, step: str, digest: str, inputs: tuple[str, ...] = (), **more: str) -> str:
    """ID of a finished run of a step, which has read `inputs` and whose result has this digest."""
    components = step_key.components(step, context.settings, list(inputs))
    tags = {"cxr.step": step, "cxr.output_digest": digest, "cxr.step_key": step_key.key(components)}
    tags |= {f"cxr.key.{name}": value for name, value in components.items()}
    run = context.client.create_run(context.experiment_id, tags=tags | {f"cxr.{k}": v for k, v in more.items()})
    folder, _, file = reuse.RESULT[step].rpartition("/")
    context.client.log_text(run.info.run_id, "", f"{folder}/{file}")
    context.client.set_terminated(run.info.run_id)
    return run.info.run_id


def test_finetune_is_reused_on_its_own_split_alone(driver):
    """After a change of test images alone, training anew gives the same weights."""
    splits = [finished(driver, "prepare_split", f"split {number}") for number in (1, 2)]
    trains = [
        finished(driver, "train", "weights", (f"split {number}",), split_run_id=split)
        for number, split in enumerate(splits, start=1)
    ]
    first = finished(driver, "finetune", "better", ("weights", "split 1"), split_run_id=splits[0])
    done = [{"prepare_split": split, "train": train} for split, train in zip(splits, trains, strict=True)]
    assert launching.step(driver, "finetune", done[0], True) == first and driver.launched == []
    assert launching.step(driver, "finetune", done[1], True) == "new"
    [(name, parameters)] = driver.launched
    assert (name, parameters["train_run_id"]) == ("finetune", trains[1])


def test_a_run_of_another_split_is_never_scored_for_this_one(driver):
    splits = [finished(driver, "prepare_split", f"split {number}") for number in (1, 1, 2)]
    finetune = finished(driver, "finetune", "better", split_run_id=splits[0])
    for same in splits[:2]:
        assert launching.step(driver, "evaluate", {"prepare_split": same, "finetune": finetune}, True) == "new"
    with pytest.raises(RuntimeError, match=f"run {finetune} was trained on the split of run {splits[0]}, not on"):
        launching.step(driver, "evaluate", {"prepare_split": splits[2], "finetune": finetune}, True)
    assert len(driver.launched) == 2


@pytest.mark.parametrize("step, inputs", [("train", ("split",)), ("finetune", ("weights", "split"))])
def test_a_training_on_images_that_were_moved_is_not_reused(driver, tmp_path, step, inputs):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    splits = [finished(driver, "prepare_split", "split", data_root=str(root)) for root in (old, new)]
    done = {"prepare_split": splits[1], "train": finished(driver, "train", "weights", split_run_id=splits[1])}
    trained = finished(driver, step, "weights", inputs, split_run_id=splits[0])
    assert launching.step(driver, step, done, True) == trained
    old.rename(new)
    assert launching.step(driver, step, done, True) == "new"


def test_a_training_whose_split_is_not_in_the_store_is_not_reused(driver):
    split = finished(driver, "prepare_split", "split")
    finished(driver, "train", "weights", ("split",), split_run_id="0" * 32)
    assert launching.step(driver, "train", {"prepare_split": split}, True) == "new"


@pytest.mark.parametrize(
    "flags, anew", [({}, []), ({"reuse": "false"}, ["prepare_split", "train", "finetune", "evaluate"])]
)
def test_main_runs_every_step_again_if_told_so(driver, monkeypatch, flags, anew):
    split = finished(driver, "prepare_split", "split", (step_key.data_fingerprint(driver.settings.data),))
    runs = {
        "prepare_split": split,
        "train": finished(driver, "train", "weights", ("split",), split_run_id=split),
        "finetune": finished(driver, "finetune", "better", ("weights", "split"), split_run_id=split),
        "evaluate": finished(driver, "evaluate", "scores", ("better", "split"), split_run_id=split),
    }
    launched = []
    monkeypatch.setattr(launching, "launch", lambda _, name, __: launched.append(name) or runs[name])
    monkeypatch.setattr(main, "summary", lambda *_: "done")
    run_id = driver.client.create_run(driver.experiment_id).info.run_id
    given = {name: getattr(driver, name) for name in ("step", "overrides", "experiment_id", "client", "folder", "log")}
    context = Context(run_id=run_id, flags=flags, **given)
    context.settings = driver.settings
    main.run(context)
    assert launched == anew
