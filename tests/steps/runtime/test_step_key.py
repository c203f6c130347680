"""The key of a step changes with all that decides its result, and with nothing else."""

from pathlib import Path

import pytest

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
        ("train", {"model__fit": "pad"}),
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
        ("evaluate", {"train__epochs": "3"}),
    ],
)
def test_settings_of_others_and_idle_ones_do_not(step, change):
    assert key(step, **change) == key(step)


def test_inputs_and_steps_change_the_key():
    assert key("train", inputs=["b"]) != key("train")
    assert key("train") != key("finetune")


def test_the_code_of_a_step_is_what_it_can_reach():
    files = {str(f.relative_to(step_key.PROJECT)) for f in step_key.sources("prepare_split")}
    assert {
        "steps/prepare_split.py",
        "steps/runtime/runner.py",
        "cxr/imaging/decode.py",
        "cxr/settings/load.py",
    } <= files
    assert "cxr/training/loop.py" not in files
    assert {"cxr/training/loop.py", "cxr/imaging/decode.py"} <= {
        str(f.relative_to(step_key.PROJECT)) for f in step_key.sources("train")
    }


def test_code_changes_the_key(monkeypatch, tmp_path):
    before = key("train")
    changed = tmp_path / "file.py"
    changed.write_text("x = 1\n")
    monkeypatch.setattr(step_key, "PROJECT", tmp_path)
    monkeypatch.setattr(step_key, "sources", lambda step: [changed])
    assert key("train") != before


def test_a_folder_is_known_by_names_sizes_and_times(tmp_path):
    def fingerprint():
        return step_key.data_fingerprint(load.load_settings(PARAMS, "", {"data.path": str(tmp_path)}).data)

    (tmp_path / "a.jpeg").write_bytes(b"1")
    first = fingerprint()
    assert fingerprint() == first
    (tmp_path / "b.jpeg").write_bytes(b"1")
    assert fingerprint() != first
