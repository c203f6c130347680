"""Settings are merged in the right order; invalid ones are refused with a clear message."""

from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import yaml

from cxr.errors import CxrError
from cxr.settings import load as loader
from cxr.settings.schema import RENAMED

PARAMS = Path(__file__).resolve().parents[3] / "params.yaml"


def load(profile="", **overrides):
    return loader.load_settings(PARAMS, profile, {key.replace("__", "."): value for key, value in overrides.items()})


def test_overrides_win_over_the_profile_and_the_profile_over_the_defaults():
    assert load().train.epochs == 20
    assert load("sample").train.epochs == 4
    assert load("sample", train__epochs="7").train.epochs == 7


def test_a_profile_keeps_settings_that_it_does_not_name():
    assert load("cpu").train.optimizer.target == load().train.optimizer.target


@pytest.mark.parametrize("old, new", RENAMED.items())
def test_a_renamed_setting_is_refused_with_its_new_name(old, new, tmp_path):
    with pytest.raises(CxrError, match=f"setting '{old}' was renamed; use '{new}'"):
        loader.load_settings(PARAMS, "", {old: "1"})
    values = yaml.safe_load(PARAMS.read_text())
    *sections, key = old.split(".")
    section = reduce(getitem, sections, values)
    section[key] = section.pop(new.rpartition(".")[2])
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(CxrError, match=f"setting '{old}' was renamed; use '{new}'"):
        loader.load_settings(tmp_path / "my.yaml")


@pytest.mark.parametrize("text, value", [("1e-4", 1e-4), ("1.0e-4", 1e-4), ("3", 3), ("-1E+2", -100.0)])
def test_numbers_in_all_common_notations_are_read(text, value):
    assert load(train__optimizer__lr=text).train.optimizer.arguments["lr"] == value


@pytest.mark.parametrize("name", ["2024", "1e5", "true", "007", "a: b"])
def test_text_settings_are_not_parsed_as_yaml(name):
    assert load(data__path=name).data.path == name


@pytest.mark.parametrize("text", ["", "null"])
def test_an_optional_setting_can_be_emptied(text):
    assert load(data__sha256=text).data.sha256 is None


def test_saved_settings_load_unchanged():
    settings = load("cpu", finetune__unfreeze="all", data__subset_size="100")
    assert loader.resolve(yaml.safe_load(settings.to_yaml())) == settings


@pytest.mark.parametrize(
    "key, text, words",
    [
        ("train.epoch", "3", "did you mean 'train.epochs'"),
        ("train.epochs", "many", "train.epochs = 'many'"),
        ("train.epochs", "0", "greater than or equal to 1"),
        ("train.epochs", "2.5", "valid integer"),
        ("train.epochs", "true", "valid integer"),
        ("train.epochs", "[1", "not valid YAML"),
        ("data.classes", "4", "2, 3 or a list"),
        ("data.val_size", "0.85", "leave at least 0.1 for training"),
        ("data.val_size", "1.0", "less than 1"),
        ("model.resize_mode", "stretch", "'crop', 'squash' or 'pad'"),
        ("data.workers", "some", "'auto'"),
        ("train.augment.crop_scale", "[0.9, 0.5]", "expected the smaller share first"),
        ("train.optimizer._target_", "os.system", "expected a class of torch.*"),
        ("train.optimizer._target_", "torch.nn.Linear; rm", "expected a class of torch.*"),
        ("train.optimizer._target_", "torchx.Adam", "expected a class of torch.*"),
        ("train", "3", "unknown setting 'train'"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(key, text, words):
    with pytest.raises(CxrError) as error:
        loader.load_settings(PARAMS, "", {key: text})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_profile_is_refused_with_the_closest_name():
    with pytest.raises(CxrError, match="did you mean 'sample'"):
        load("samples")


@pytest.mark.parametrize(
    "text, words",
    [
        ("seed: [", "line 1: not valid YAML"),
        ("- a list", "expected a mapping of settings, got list"),
        ("seed: 1", "setting 'device' is missing"),
    ],
)
def test_a_broken_settings_file_is_named(tmp_path, text, words):
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(CxrError, match=words):
        loader.load_settings(file)


def test_a_missing_settings_file_is_named(tmp_path):
    with pytest.raises(CxrError, match=r"no\.yaml: No such file"):
        loader.load_settings(tmp_path / "no.yaml")


def test_an_unknown_key_in_the_file_is_refused(tmp_path):
    values = yaml.safe_load(PARAMS.read_text())
    values["train"]["epochz"] = 3
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(CxrError, match=r"unknown setting 'train\.epochz'; did you mean 'train\.epochs'"):
        loader.load_settings(tmp_path / "my.yaml")
