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
        ("serving.abstain", "[0.4, 0.6]", "is gone: the band is chosen on validation now; set serving.refer_share or"),
        ("serving.refer_share", "null", "refer_share None, risk None: the band is chosen by one of them"),
        ("serving.refer_share", "1.0", "less than 1"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(key, text, words):
    with pytest.raises(CxrError) as error:
        loader.load_settings(PARAMS, "", {key: text})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("profile", "given", "rule"),
    [
        ("", {}, ("refer_share", 0.03)),
        ("", {"risk": "0.02"}, ("risk", 0.02)),
        ("", {"risk": "0.02", "refer_share": "null"}, ("risk", 0.02)),
        ("", {"risk": "null"}, ("refer_share", 0.03)),
        ("", {"refer_share": "0.1"}, ("refer_share", 0.1)),
        ("mine", {}, ("risk", 0.01)),
        ("mine", {"max_images": "3"}, ("risk", 0.01)),
        ("mine", {"refer_share": "0.1"}, ("refer_share", 0.1)),
        ("mine", {"risk": "0.04"}, ("risk", 0.04)),
    ],
)
def test_the_rule_of_referral_that_is_given_last_takes_back_the_other(tmp_path, profile, given, rule):
    values = yaml.safe_load(PARAMS.read_text())
    values["profiles"]["mine"] = {"serving": {"risk": 0.01}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values))
    overrides = {f"serving.{name}": text for name, text in given.items()}
    settings = loader.load_settings(tmp_path / "my.yaml", profile, overrides)
    assert settings.serving.rule == rule
    assert loader.resolve(yaml.safe_load(settings.to_yaml())) == settings


@pytest.mark.parametrize("layer", ["file", "profile", "command line"])
def test_both_rules_of_referral_in_one_place_are_refused(tmp_path, layer):
    both, values = {"risk": 0.02, "refer_share": 0.03}, yaml.safe_load(PARAMS.read_text())
    values["serving"] |= both if layer == "file" else {}
    values["profiles"]["mine"] = {"serving": both if layer == "profile" else {}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values))
    overrides = {f"serving.{name}": str(value) for name, value in both.items()} if layer == "command line" else {}
    with pytest.raises(CxrError, match=r"refer_share 0\.03, risk 0\.02: the band is chosen by one of them; give one"):
        loader.load_settings(tmp_path / "my.yaml", "mine", overrides)


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


def test_a_recipe_wins_over_the_file_and_the_profile_and_the_command_line_over_the_recipe(tmp_path):
    values = yaml.safe_load(PARAMS.read_text())
    values["profiles"]["mine"] = {"data": {"recipe": "chexpert", "classes": 3}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values))
    data = loader.load_settings(tmp_path / "my.yaml", "mine", {"data.columns.view": "Frontal/Lateral"}).data
    assert (data.labels, data.columns.age, data.classes, data.columns.view) == (
        "train.csv",
        "Age",
        3,
        "Frontal/Lateral",
    )
    other = loader.load_settings(tmp_path / "my.yaml", "mine", {"data.recipe": "nih_chestxray14"}).data
    assert (other.labels, other.patient_pattern) == ("Data_Entry_2017.csv", None)
    assert loader.load_settings(tmp_path / "my.yaml", "mine", {"data.recipe": "null"}).data.labels is None


def test_a_recipe_that_names_its_images_wins_over_the_phantoms_of_the_default_profile():
    assert load("sample").data.path == "sample"
    assert load("sample", data__recipe="kermany").data.path == "mendeley"


def test_settings_of_a_recipe_stay_when_they_are_saved():
    settings = load(data__recipe="rsna_pneumonia_2018", data__mapping="{0: normal, 1: pneumonia}")
    assert settings.data.mapping["0"] == "normal" and settings.data.mapping["Lung Opacity"] == "pneumonia"
    assert loader.resolve(yaml.safe_load(settings.to_yaml())) == settings


@pytest.mark.parametrize(
    "recipe, words",
    [
        ("nih_14", r"data\.recipe=nih_14: no such recipe; did you mean 'nih_chestxray14'\?, or the path of a FILE"),
        ("x", r"no such recipe; expected one of chexpert, covid_chestxray_dataset, kermany, nih_chestxray14, "),
        ("no.yaml", r"settings file no\.yaml: No such file or directory; give a YAML file as -P data\.recipe=FILE"),
        ("list.yaml", "expected a mapping of settings, got list"),
        ("wrong.yaml", r"unknown setting 'data\.label'; did you mean 'data\.labels'"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, monkeypatch, recipe, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("- labels")
    (tmp_path / "wrong.yaml").write_text("label: x")
    with pytest.raises(CxrError, match=words):
        load(data__recipe=recipe)


@pytest.mark.parametrize(
    "key, text, words",
    [
        (
            "data.labels",
            "x.csv",
            "labels from a table need its columns: expected data.columns.path and data",
        ),
        ("data.labels", "{train: a.csv, dev: b.csv}", "one for each official split: {train: FILE, test: FILE}"),
        ("data.columns.label", "[No, Yes]", 'a list of names, with words such as "No" in quotes'),
        ("data.filters", "{view: No}", "expected a value, a list of values, or {min: NUMBER, max: NUMBER}"),
        ("data.filters", "{view: {min: 3, max: 1}}", "min 3 is above max 1"),
        ("data.filters", "{view: {max: -1, size: 2}}", "expected a value, a list of values, or {min: NUMBER"),
        ("data.filters", "{view: __import__('os')}", ""),
        ("data.mapping", "{No: normal}", "expected {THEIRS: OURS, …}"),
        ("data.patient_pattern", "(a", "expected a regular expression (missing )"),
    ],
)
def test_settings_of_a_table_are_checked_in_one_line(key, text, words):
    if not words:  # never more than a word that no row has
        assert load(**{key.replace(".", "__"): text}).data.filters == {"view": "__import__('os')"}
        return
    with pytest.raises(CxrError) as error:
        loader.load_settings(PARAMS, "", {key: text})
    assert (words in str(error.value) and str(error.value).count("expected") == 1) or "above" in words


def test_brackets_begin_a_list_only_where_one_is_allowed():
    assert load(data__path="[a]").data.path == "[a]"
    assert load(data__columns__label="[a, b]").data.columns.label == ["a", "b"]
    assert load(data__columns__label="2024").data.columns.label == "2024"


@pytest.mark.parametrize(
    ("profile", "overrides", "given"),
    [
        ("", {}, False),
        ("sample", {"data.finding": "pneumonia"}, False),
        ("", {"data.classes": "3"}, True),
        ("", {"data.recipe": "chexpert"}, True),
        ("", {"data.recipe": "FILE"}, False),
        ("mine", {}, True),
    ],
)
def test_what_gives_a_setting_is_a_profile_a_recipe_or_the_command_line(tmp_path, profile, overrides, given):
    values = yaml.safe_load(PARAMS.read_text())
    values["profiles"]["mine"] = {"data": {"classes": 2}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "site.yaml").write_text("labels: x.csv\ncolumns: {path: a, label: b}\n")
    overrides = {key: text.replace("FILE", str(tmp_path / "site.yaml")) for key, text in overrides.items()}
    assert loader.is_given("data.classes", tmp_path / "my.yaml", profile, overrides) == given
