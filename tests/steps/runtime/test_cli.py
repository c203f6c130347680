"""Parse command lines as MLflow writes them."""

import shlex
import subprocess
import sys

import pytest
import yaml

from cxr.errors import CxrError
from steps.runtime.cli import Step, parse
from tests.steps.conftest import ROOT

STEP = Step(
    name="train",
    about="Train.",
    parents={"split_run_id": ("prepare_split",)},
    short={"epochs": "train.epochs finetune.epochs", "lr": "train.optimizer.lr"},
    flags={"resume": "run ID"},
)


def test_an_empty_text_means_not_given():
    arguments = parse(STEP, ["--epochs", "", "--resume", "", "--profile", "cpu"])
    assert arguments.flags == {"profile": "cpu"}
    assert arguments.overrides == {}


def test_a_short_name_sets_every_setting_it_stands_for():
    assert parse(STEP, ["--epochs", "3"]).overrides == {"train.epochs": "3", "finetune.epochs": "3"}


def test_the_full_name_wins_over_the_short_one_in_any_order():
    for argv in (["--epochs", "3", "--train.epochs", "9"], ["--train.epochs=9", "--epochs", "3"]):
        assert parse(STEP, argv).overrides == {"train.epochs": "9", "finetune.epochs": "3"}


def test_values_may_begin_with_a_dash():
    assert parse(STEP, ["--train.min_delta", "-1"]).overrides == {"train.min_delta": "-1"}


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--epoch", "3"], ["unknown parameter 'epoch'", "did you mean 'epochs'"]),
        (["epochs", "3"], ["expected a parameter, got 'epochs'"]),
        (["--epochs"], ["'epochs' has no value"]),
    ],
)
def test_unknown_words_are_refused_in_one_line(argv, words):
    with pytest.raises(CxrError) as error:
        parse(STEP, argv)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_help_names_every_parameter(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse(STEP, ["--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in STEP.parameters())
    profiles = yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"]
    assert " | ".join(profiles) in " ".join(text.split())


def test_a_setting_without_a_section_is_a_setting():
    arguments = parse(STEP, ["--precision", "float32", "--device", "cpu"])
    assert arguments.overrides == {"precision": "float32", "device": "cpu"}


def test_help_needs_neither_torch_nor_mlflow():
    code = """
import sys
from importlib import import_module
from pathlib import Path
for file in Path("steps").glob("[!_]*.py"):
    import_module(f"steps.{file.stem}")
print(sorted({"torch", "mlflow"} & set(sys.modules)))
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_values_that_mlflow_quotes_twice_arrive_as_they_are():
    """`mlflow.projects.kubernetes._get_run_command` quotes each word and no shell takes that off again."""
    values = {"resume": "", "profile": "cpu", "data.path": "/my data/a'b", "data.mapping": "{Pneumonia: pneumonia}"}
    command = " ".join(f"--{name} {shlex.quote(value)}" for name, value in values.items())
    arguments = parse(STEP, [shlex.quote(word) for word in shlex.split(command)])
    assert arguments.flags == {"profile": "cpu"}
    assert arguments.overrides == {name: values[name] for name in ("data.path", "data.mapping")}


def test_quotes_that_were_given_stay():
    """Without an empty value in quotes, a shell has taken off those of MLflow."""
    argv = ["--resume", "", "--data.patient_pattern", "'p1'", "--data.separator", "it's"]
    assert parse(STEP, argv).overrides == {"data.patient_pattern": "'p1'", "data.separator": "it's"}
    odd = ["--resume", "''", "--data.separator", "it's", "--data.patient_pattern", '"p1"']
    assert parse(STEP, odd).overrides == {"data.patient_pattern": '"p1"', "data.separator": "it's"}
