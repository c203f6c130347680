"""The key of a step changes with everything that decides its result, and with nothing else."""

import os
from pathlib import Path

import pytest

from cxr.common import code
from cxr.settings import load
from steps.runtime import step_key

PARAMS = Path(__file__).resolve().parents[3] / "params.yaml"


def key(step, inputs=("a",), **overrides):
    settings = load.load_settings(PARAMS, "", {name.replace("__", "."): value for name, value in overrides.items()})
    return step_key.key(step_key.components(step, settings, list(inputs)))


@pytest.mark.parametrize(
    "step, change",
    [
        ("prepare_split", {"data__val_size": "0.3"}),
        ("prepare_split", {"seed": "1"}),
        ("train", {"train__optimizer__lr": "1e-3"}),
        ("train", {"model__resize_mode": "pad"}),
        ("train", {"precision": "float32"}),
        ("finetune", {"finetune__unfreeze": "3"}),
        ("evaluate", {"registry__name": "other"}),
    ],
)
def test_its_own_settings_change_the_key(step, change):
    assert key(step, **change) != key(step)


@pytest.mark.parametrize(
    "step, change",
    [
        ("prepare_split", {"train__epochs": "3"}),
        ("train", {"finetune__epochs": "3"}),
        ("train", {"log_dir": "elsewhere"}),
        ("train", {"train__workers": "1"}),
        ("train", {"train__checkpoint_interval": "5"}),
        ("evaluate", {"train__epochs": "3"}),
    ],
)
def test_settings_of_other_steps_and_idle_ones_do_not(step, change):
    assert key(step, **change) == key(step)


def test_inputs_and_steps_change_the_key():
    assert key("train", inputs=["b"]) != key("train")
    assert key("train") != key("finetune")


def source_names(step):
    return {file.relative_to(code.PROJECT).as_posix() for file in code.sources(*step_key.entries(step))}


def test_the_code_of_a_step_is_what_its_entry_point_and_its_work_import():
    split, train = source_names("prepare_split"), source_names("train")
    for step, files in (("prepare_split", split), ("train", train)):
        assert {f"steps/{step}.py", f"steps/work/{step}.py", "steps/runtime/runner.py"} <= files
        assert {"cxr/imaging/decode.py", "cxr/settings/load.py"} <= files
    assert {"steps/work/training.py", "cxr/training/loop.py"} <= train
    assert not {"steps/work/train.py", "steps/work/training.py", "cxr/training/loop.py"} & split


def test_what_a_step_uses_without_importing_it_belongs_to_its_code():
    assert {"cxr/serving/mlflow_model.py", "cxr/report/page.html.j2"} <= source_names("evaluate")
    assert "cxr/training/losses.py" in source_names("train") & source_names("finetune")


@pytest.mark.parametrize("component, other", [("digest", "other code"), ("libraries", {"torch": "next"})])
def test_code_and_libraries_change_the_key(monkeypatch, component, other):
    before = key("train")
    monkeypatch.setattr(code, component, lambda *modules: other)
    assert key("train") != before


def test_the_fingerprint_of_a_folder_covers_names_sizes_and_times(tmp_path):
    def fingerprint():
        return step_key.data_fingerprint(load.load_settings(PARAMS, "", {"data.path": str(tmp_path)}).data)

    (tmp_path / "a.jpeg").write_bytes(b"1")
    first = fingerprint()
    assert fingerprint() == first
    (tmp_path / "b.jpeg").write_bytes(b"1")
    assert fingerprint() != first


def test_the_content_of_the_labels_and_the_recipe_change_the_key(tmp_path):
    recipe, labels = tmp_path / "my.yaml", tmp_path / "elsewhere/labels.csv"
    labels.parent.mkdir()
    labels.write_text("file,finding\n")
    recipe.write_text(f"labels: {labels}\ncolumns: {{path: file, label: finding}}\n")
    (tmp_path / "images").mkdir()

    def of(file=recipe):
        given = {"data.path": str(tmp_path / "images"), "data.recipe": str(file)}
        data = load.load_settings(PARAMS, "", given)
        return step_key.key(step_key.components("prepare_split", data, [step_key.data_fingerprint(data.data)]))

    first = of()
    assert of() == first
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.read_text())
    assert of(copy) == first  # its name says nothing
    recipe.write_text(f"labels: {labels}\ncolumns: {{path: file, label: label}}\n")
    assert of() != first
    recipe.write_text(copy.read_text())
    labels.write_text("file,FINDING\n")  # of the same size
    assert of() != first


def test_tables_of_splits_below_the_data_change_the_key(tmp_path):
    def fingerprint():
        given = {"data.path": str(tmp_path), "data.labels": "{train: a.csv, test: b.csv}"}
        given |= {"data.columns.path": "p", "data.columns.label": "l"}
        return step_key.data_fingerprint(load.load_settings(PARAMS, "", given).data)

    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("1")
    times = (tmp_path / "b.csv").stat()
    first = fingerprint()
    (tmp_path / "b.csv").write_text("2")
    os.utime(tmp_path / "b.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint() != first


def test_the_fingerprint_of_a_bucket_covers_names_and_contents_without_reading_them(bucket):
    def fingerprint(**more):
        given = {"data.path": "s3://xrays/set"} | {f"data.{name.replace('__', '.')}": v for name, v in more.items()}
        return step_key.data_fingerprint(load.load_settings(PARAMS, "", given).data)

    bucket.put("set/a.jpeg", b"1")
    first = fingerprint()
    assert fingerprint() == first
    bucket.put("set/a.jpeg", b"2")
    second = fingerprint()
    bucket.put("set/b.jpeg", b"1")
    assert len({first, second, fingerprint()}) == 3 and bucket.reads() == []
    columns = {"labels": "labels.csv", "columns__path": "p", "columns__label": "l"}
    bucket.put("set/labels.csv", b"p,l\n")
    with_labels = fingerprint(**columns)
    assert with_labels != fingerprint() and bucket.reads() == ["set/labels.csv"]
