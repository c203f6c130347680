"""The rules of the house: who may import whom, how long a file may grow, and one name for one thing."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from cxr import config
from steps import keys
from steps.inherit import COMMON, OWNED

ROOT = Path(__file__).resolve().parent.parent
CXR = sorted((ROOT / "cxr").rglob("*.py"))
STEPS = sorted((ROOT / "steps").rglob("*.py"))
ENTRY_POINTS = (
    "main",
    "prepare_split",
    "train",
    "finetune",
    "evaluate",
    "ensemble",
    "promote",
    "predict",
    "demo",
    "clean",
)


def top_packages(file: Path) -> set[str]:
    """First names of everything that `file` imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative imports hide where a name comes from"
            names.add(node.module.split(".")[0])
    return names


def test_the_domain_imports_neither_steps_nor_tracking():
    for file in CXR:
        forbidden = {"steps"} if file.name == "served.py" else {"steps", "mlflow"}
        assert not forbidden & top_packages(file), file


def test_steps_do_not_import_each_other():
    for file in STEPS:
        others = {f"steps.{name}" for name in ENTRY_POINTS if name != file.stem}
        assert not others & keys.imports(file), file


LIGHT = ("errors", "config", "schema", "images", "dicom", "manifest", "layouts", "heat", "probabilities", "served")
LIGHT += ("serving/intake", "serving/guard", "serving/session", "serving/service")


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_do_without_torch(module):
    assert not {"torch", "torchvision"} & top_packages(ROOT / f"cxr/{module}.py")


def test_the_driver_does_not_import_torch_by_itself():
    for module in ("main", "plumbing", "context", "inherit", "keys", "reuse", "runs", "summary", "cli", "logs"):
        assert "torch" not in top_packages(ROOT / f"steps/{module}.py")


def test_no_file_grows_past_300_lines():
    for room in ("cxr", "steps", "tests", "bench"):
        for file in (ROOT / room).rglob("*.py"):
            assert len(file.read_text().splitlines()) <= 300, file


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_mlproject_and_step_declare_the_same_parameters(name):
    entry = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"][name]
    step = import_module(f"steps.{name}").STEP
    assert set(entry["parameters"]) == set(step.parameters())
    # A declared parameter that the command does not name never reaches the step; quotes would let a shell read it.
    words = entry["command"].split()
    for parameter in entry["parameters"]:
        assert words[words.index(f"--{parameter}") + 1] == f"{{{parameter}}}"


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_short_names_stand_for_settings_that_exist(name):
    step = import_module(f"steps.{name}").STEP
    settings = config.load(ROOT / "params.yaml").to_dict()
    for keys_ in step.short.values():
        for key in keys_.split():
            value = settings
            for part in key.split("."):
                assert part in value, key
                value = value[part]


def test_every_section_of_the_settings_has_one_owner():
    owned = [section for sections in OWNED.values() for section in sections]
    sections = {key.split(".")[0] for key in config.known_keys() if "." in key}
    common = {key for key in COMMON if key in sections}
    assert sorted([*owned, *common]) == sorted(sections)
    assert sorted(set(COMMON) - common) == sorted(key for key in config.known_keys() if "." not in key)


@pytest.mark.parametrize("profile", ["", "sample", "cpu", "paper"])
def test_every_profile_of_params_yaml_is_valid(profile):
    assert config.load(ROOT / "params.yaml", profile).seed == 42


def test_what_is_served_runs_on_the_versions_it_was_made_with():
    def pins(name: str) -> set[str]:
        lines = (ROOT / name).read_text().splitlines()
        return {line.split(";")[0].strip() for line in lines if "==" in line and not line.startswith("#")}

    assert pins("requirements-serve.txt") <= pins("requirements.txt")


def test_every_requirement_is_pinned():
    lines = [line.split(";")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert all("==" in line for line in lines if line and not line.startswith("#"))
    environment = yaml.safe_load((ROOT / "python_env.yaml").read_text())
    assert environment["python"] == "3.11.7"
    assert all("==" in line for line in environment["build_dependencies"])
