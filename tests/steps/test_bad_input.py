"""Errors of users end in one clear line, exit status 1 and a run marked FAILED; nothing is lost."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import mlflow
import pytest
from PIL import Image

from tests.steps.conftest import PLAIN, parameters


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small dataset in the official layout: six patients of each class."""
    root = tmp_path / "set"
    for number in range(18):
        label = ("normal", "bacteria", "virus")[number % 3]
        name = f"NORMAL/IM-{number}-1.jpeg" if label == "normal" else f"PNEUMONIA/person{number}_{label}_1.jpeg"
        path = root / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 40), 90).save(path)
    return root


def test_a_missing_folder_is_refused(refused, tmp_path):
    assert "does not exist; expected a folder, a .zip" in refused("prepare_split", data_path=tmp_path / "none")


@pytest.mark.parametrize(("name", "shown"), [(b"a\x1b[2J\n", r"a\x1b[2J\n has control"), (b"caf\xe9", r"caf\udce9")])
def test_a_folder_whose_name_cannot_be_printed_is_refused(refused, folder, name, shown):
    odd = folder.rename(folder.parent / os.fsdecode(name))
    assert shown in refused("prepare_split", data_path=odd)


def test_images_whose_names_cannot_be_printed_count_as_unreadable(refused, folder):
    (folder / "train/NORMAL/IM-0-1.jpeg").rename(folder / os.fsdecode(b"train/NORMAL/IM\r\x1b[2J\xe9.jpeg"))
    line = refused("prepare_split", data_path=folder)
    assert r"IM\r\x1b[2J\udce9.jpeg: its name has control characters or is not UTF-8; rename it" in line


def test_a_folder_without_images_is_refused(refused, tmp_path):
    assert "holds no X-rays in a known layout" in refused("prepare_split", data_path=tmp_path)


def test_a_class_without_images_is_refused(refused, folder):
    shutil.rmtree(folder / "train/NORMAL")
    assert "has no images of normal (seen: 6 bacteria, 6 virus)" in refused("prepare_split", data_path=folder)


def test_a_split_without_a_class_is_refused(refused, folder):
    line = refused("prepare_split", data_path=folder, data__val_size=0.01)
    assert "the val split would have no images of" in line


def test_too_many_unreadable_images_are_refused(refused, folder):
    (folder / "train/NORMAL/IM-90-1.jpeg").write_text("text")
    (folder / "train/NORMAL/IM-91-1.jpeg").write_bytes(b"")
    line = refused("prepare_split", data_path=folder)
    assert "2 of 20 images cannot be read, more than data.max_unreadable=0.01 allows" in line
    assert "IM-91-1.jpeg: the file is empty (0 bytes)" in line


def test_a_zip_with_members_outside_its_folder_is_refused(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as packed:
        packed.writestr("../evil.jpeg", b"")
    line = refused("prepare_split", data_path=tmp_path / "evil.zip", data__cache_dir=tmp_path / "cache")
    assert "lies outside the target folder; do not trust this archive" in line


def test_a_truncated_zip_is_refused(refused, tmp_path):
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 and no end")
    line = refused("prepare_split", data_path=tmp_path / "cut.zip", data__cache_dir=tmp_path / "cache")
    assert "is not a zip archive, or is truncated or damaged" in line


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train__epoch": 3}, "unknown setting 'train.epoch'; did you mean 'train.epochs'"),
        ({"train__epochs": "many"}, "setting train.epochs = 'many'"),
        ({"train__epochs": 0}, "setting train.epochs = 0"),
        ({"train__optimizer___target_": "os.system"}, "expected a class of torch."),
        ({"train__optimizer___target_": "torch.optim.Adamm"}, "did you mean torch.optim.Adam"),
        ({"profile": "laptop"}, "laptop"),
        ({"params": "none.yaml"}, "none.yaml"),
        ({"epoch": 3}, "unknown parameter 'epoch'; did you mean 'epochs'"),
    ],
)
def test_invalid_settings_are_refused(refused, given, words):
    given = {name.replace("optimizer___target_", "optimizer._target_"): value for name, value in given.items()}
    assert words in refused("train", **given)


def test_a_setting_of_an_earlier_step_is_refused(refused):
    assert "setting data.val_size belongs to prepare_split" in refused("train", data__val_size=0.3)


@pytest.mark.parametrize(
    "step, parameter", [("train", "split_run_id"), ("finetune", "train_run_id"), ("evaluate", "run_id")]
)
def test_a_missing_run_or_one_of_another_step_is_refused(refused, workflow, step, parameter):
    assert "no run with this ID in" in refused(step, **{parameter: "0" * 32})
    other = workflow.first("evaluate").info.run_id
    assert f"{parameter}={other}: expected a run of " in (line := refused(step, **{parameter: other}))
    assert "got a run of 'evaluate'" in line


def test_a_failed_run_is_refused(refused, workflow, tmp_path):
    refused("prepare_split", data_path=tmp_path)
    failed = workflow.runs("prepare_split", "FAILED")[0].info.run_id
    assert "expected a finished run, got one that is FAILED" in refused("train", split_run_id=failed)


def test_a_step_without_an_earlier_run_is_refused(refused, workflow, monkeypatch):
    empty = workflow.client.get_experiment_by_name("empty")
    other = empty.experiment_id if empty else workflow.client.create_experiment("empty")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", other)
    mlflow.set_experiment(experiment_id=other)
    line = refused("train")
    assert "no finished prepare_split run in this experiment; run `mlflow run . -e prepare_split` first" in line


def bundle_of(workflow, tmp_path) -> Path:
    return Path(shutil.copytree(workflow.artifact(workflow.first("train"), "bundle"), tmp_path / "bundle"))


def test_a_bundle_with_other_classes_is_refused(refused, workflow, tmp_path):
    bundle = bundle_of(workflow, tmp_path)
    values = json.loads((bundle / "config.json").read_text())
    (bundle / "config.json").write_text(json.dumps({**values, "classes": ["normal", "virus", "bacteria"]}))
    line = refused("evaluate", bundle=bundle)
    assert "the bundle has the classes normal, virus, bacteria, the split has normal, bacteria, virus" in line


def test_a_truncated_bundle_is_refused(refused, workflow, tmp_path):
    bundle = bundle_of(workflow, tmp_path)
    (bundle / "model.pt").write_bytes((bundle / "model.pt").read_bytes()[:1000])
    line = refused("evaluate", bundle=bundle)
    assert "model.pt is not the one that config.json names (truncated or replaced)" in line


def test_a_bundle_and_a_run_together_are_refused(refused, workflow, tmp_path):
    line = refused("evaluate", bundle=tmp_path, run_id=workflow.first("train").info.run_id)
    assert "run_id and bundle are both given; give one of them" in line


def test_a_truncated_checkpoint_is_refused_and_its_run_unchanged(refused, workflow):
    train = workflow.first("train")
    file = workflow.folder / "artifacts" / train.info.run_id / "artifacts/checkpoint/last.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    try:
        same = {"train__epochs": 2, "train__optimizer__lr": 3e-4, "model__input_size": 64, "precision": "float32"}
        line = refused("train", resume=train.info.run_id, **same)
    finally:
        file.write_bytes(whole)
    assert "is damaged" in line
    assert "train from scratch, without resume" in line
    assert workflow.client.get_run(train.info.run_id).info.status == "FINISHED"


def test_training_is_not_resumed_with_other_settings(refused, workflow):
    same = {"train__epochs": 2, "train__optimizer__lr": 3e-4, "model__input_size": 64, "precision": "float32"}
    run_id = workflow.first("train").info.run_id
    line = refused("train", resume=run_id, **{**same, "train__epochs": 9})
    assert "its settings differ from those of this command (train.epochs was 2, now 9); resume with" in line
    stages = "[{share: 0.5, size: 32, strength: 0.5}, {share: 0.5, size: 64, strength: 1.0}]"
    line = refused("train", resume=run_id, train__stages=stages, cache__views=0, **same)
    assert 'differ from those of this command (train.stages was [], now [{"share": 0.5, "size": 32, ' in line
    assert "…; cache.views was 4, now 0); resume with the same ones, or train from scratch, without resume" in line


def test_main_checks_the_network_before_the_first_step(refused, workflow):
    before = workflow.runs("prepare_split")
    assert "model.name=no_such_network: no such architecture" in refused("main", model__name="no_such_network")
    assert "no such file" in refused("main", model__weights="/none/weights.pth")
    assert len(workflow.runs("prepare_split")) == len(before)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {
                "finetune__stages": "[{share: 1.0, size: 32, strength: 1.0}]",
                "model__name": "alexnet",
                "cache__views": 0,
            },
            "finetune.stages: size=32: alexnet",
        ),
        ({"train__dropout": 0.5, "model__name": "resnet18"}, "train.dropout=0.5: resnet18 has no dropout"),
        ({"finetune__augment.mixup": 0.2}, "finetune.augment.mixup: not possible with cached features"),
        (
            {
                "finetune__warmup": 1,
                "finetune__scheduler": "{_target_: torch.optim.lr_scheduler.StepLR, step_size: 1}",
            },
            "setting finetune: warmup=1 goes batch by batch",
        ),
    ],
    ids=["stage", "dropout", "features", "warm-up"],
)
def test_main_checks_each_training_before_the_first_step(refused, workflow, given, words):
    def begun():
        return [len(workflow.runs("prepare_split", status)) for status in ("FINISHED", "FAILED", "RUNNING")]

    before = begun()
    assert words in refused("main", **{"model__weights": "none", **given})
    assert begun() == before


def test_an_ensemble_of_folds_with_several_views_is_refused_before_the_first_step(refused, workflow):
    before = workflow.runs("prepare_split")
    line = refused("main", folds=2, ensemble="true", evaluate__views=3)
    assert "evaluate.views=3: the out-of-fold answers" in line and "set evaluate.views=1, or give seeds=5" in line
    assert len(workflow.runs("prepare_split")) == len(before)


def test_an_architecture_without_a_known_head_is_refused(refused):
    assert "its head was not found" in refused("train", model__name="squeezenet1_0", model__weights="none")


def test_an_output_folder_that_cannot_be_written_is_refused(refused, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused("evaluate", out=tmp_path / "file/out", registry__register="false", **parameters(*PLAIN))
    assert "give a folder that can be written to" in line


def test_an_unusable_store_is_refused(refused, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/none/mlflow.db")
    mlflow.set_tracking_uri("sqlite:////proc/none/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    assert "the MLflow store sqlite:////proc/none/mlflow.db cannot be used" in refused("prepare_split")
