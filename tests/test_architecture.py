"""The rules of the house: who may import whom, how long a file may grow, and one name for one thing."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from bench.faults import supply
from cxr.common import code
from cxr.settings import load
from steps.runtime.settings import ALONE, COMMON, OWNED

ROOT = Path(__file__).resolve().parent.parent
CXR = sorted((ROOT / "cxr").rglob("*.py"))
STEPS = sorted((ROOT / "steps").rglob("*.py"))
ENTRY_POINTS = (
    "main",
    "prepare_split",
    "train",
    "finetune",
    "evaluate",
    "validate",
    "ensemble",
    "promote",
    "repackage",
    "predict",
    "monitor",
    "search",
    "demo",
    "clean",
)
# A room imports only rooms before it in its list.
CXR_ROOMS = (
    "errors",
    "common",
    "settings",
    "search",
    "imaging",
    "serving",
    "archive",
    "datasets",
    "models",
    "loading",
    "training",
    "evaluation",
    "monitoring",
    "packaging",
    "report",
    "demo",
)
STEPS_ROOMS = ("runtime", "registry", "work", *ENTRY_POINTS)
SHIPPED = {"imaging", "serving"}
WITHOUT_TORCH = (
    "errors",
    "common",
    "search",
    "imaging",
    "serving",
    "archive",
    "datasets",
    "monitoring",
    "report",
    "demo",
)


def top_packages(file: Path) -> set[str]:
    """First names of everything that `file` imports: at its top, inside functions, or for type checking."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative imports hide where a name comes from"
            names.add(node.module.split(".")[0])
    return names


def room_of(module: str) -> str:
    """`cxr.imaging.decode` -> `imaging`; empty for the package itself."""
    return [*module.split("."), ""][1]


def imported_rooms(file: Path, package: str) -> set[str]:
    """Rooms of `package` that `file` imports, its own left out."""
    own = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
    names = {name for name in code.imports(file) if name.split(".")[0] == package}
    return {room_of(name) for name in names} - {own, ""}


@pytest.mark.parametrize("package, order", [("cxr", CXR_ROOMS), ("steps", STEPS_ROOMS)])
def test_imports_between_rooms_run_one_way(package, order):
    for file in (ROOT / package).rglob("*.py"):
        own = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        if own == "__init__":
            assert not imported_rooms(file, package)
            continue
        assert own in order, f"{file}: a room that has no place in the order"
        later = {room for room in imported_rooms(file, package) if order.index(room) > order.index(own)}
        assert not later, f"{file} imports {later}, which come later than {own}"


def test_what_ships_imports_nothing_else():
    for room in SHIPPED:
        for file in (ROOT / "cxr" / room).rglob("*.py"):
            assert imported_rooms(file, "cxr") <= {"errors", "common"} | SHIPPED, file


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_these_rooms_do_without_torch(room):
    files = list((ROOT / "cxr" / room).rglob("*.py")) or [ROOT / f"cxr/{room}.py"]
    for file in files:
        assert not {"torch", "torchvision", "torchmetrics"} & top_packages(file), file


def test_the_domain_imports_neither_steps_nor_tracking():
    for file in CXR:
        forbidden = {"steps"} if file.name == "mlflow_model.py" else {"steps", "mlflow"}
        assert not forbidden & top_packages(file), file


def test_the_runtime_knows_nothing_of_xrays():
    for file in (ROOT / "steps/runtime").rglob("*.py"):
        assert imported_rooms(file, "cxr") <= {"errors", "common", "settings"}, file
        assert "torch" not in top_packages(file), file


def test_entry_points_do_not_import_each_other_nor_torch():
    for name in ENTRY_POINTS:
        file = ROOT / f"steps/{name}.py"
        assert not imported_rooms(file, "steps") & set(ENTRY_POINTS), file
        assert "torch" not in top_packages(file), file


def test_every_room_says_what_it_is_for():
    for folder in [ROOT / "cxr", ROOT / "steps", *(ROOT / "cxr").glob("*/"), *(ROOT / "steps").glob("*/")]:
        if folder.name != "__pycache__":
            text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
            assert text, folder
            assert len(text.splitlines()) > 1, folder


def test_tests_mirror_the_rooms():
    for package in ("cxr", "steps"):
        rooms = {folder.name for folder in (ROOT / package).glob("*/")} - {"__pycache__"}
        mirrored = {folder.name for folder in (ROOT / "tests" / package).glob("*/")} - {"__pycache__"}
        assert mirrored <= rooms, mirrored - rooms


def test_no_file_grows_past_300_lines():
    for folder in ("cxr", "steps", "tests", "bench"):
        for file in (ROOT / folder).rglob("*.py"):
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
    settings = load.load_settings(ROOT / "params.yaml").to_dict()
    for keys_ in step.short.values():
        for key in keys_.split():
            value = settings
            for part in key.split("."):
                assert part in value, key
                value = value[part]


def test_every_section_of_the_settings_has_one_owner():
    owned = [section for sections in (OWNED | ALONE).values() for section in sections]
    sections = {key.split(".")[0] for key in load.known_keys() if "." in key}
    common = {key for key in COMMON if key in sections}
    assert sorted([*owned, *common]) == sorted(sections)
    assert sorted(set(COMMON) - common) == sorted(key for key in load.known_keys() if "." not in key)


@pytest.mark.parametrize("profile", ["", *load.profiles(ROOT / "params.yaml")])
def test_every_profile_of_params_yaml_is_valid(profile):
    assert load.load_settings(ROOT / "params.yaml", profile).seed == 42


def test_what_is_served_runs_on_the_versions_it_was_made_with():
    def pins(name: str) -> set[str]:
        return {pin for pin, _ in supply.requirements(ROOT / name)}

    assert pins("requirements-serve.txt") <= pins("requirements.txt")


def test_every_requirement_is_pinned_and_has_its_hashes():
    files = supply.requirement_files()
    assert "requirements.txt" in [file.name for file in files] and len(files) == len(
        list(ROOT.glob("requirements*.in"))
    )
    for file in files:
        assert supply.requirements(file)
        assert not supply.loose(file), file.name
    environment = yaml.safe_load((ROOT / "python_env.yaml").read_text())
    # Nothing beside the file: MLflow would install it without a hash.
    assert environment == {"python": "3.11.7", "dependencies": ["-r requirements.txt"]}


@pytest.mark.parametrize(
    "line", ["a==1", "a>=1 --hash=sha256:" + "0" * 64, "a==1 --hash=md5:" + "0" * 32, "-e .", "--extra-index-url b"]
)
def test_a_requirement_without_version_or_hash_is_loose(tmp_path, line):
    whole = f"b==2 ; sys_platform != 'win32' \\\n    --hash=sha256:{'1' * 64}\n    # via c\n"
    (tmp_path / "requirements.txt").write_text(whole)
    assert supply.loose(tmp_path / "requirements.txt") == []
    (tmp_path / "requirements.txt").write_text(f"{whole}{line}\n")
    assert supply.loose(tmp_path / "requirements.txt") == [line]


def test_tests_of_a_group_share_a_process(request):
    """Each worker would otherwise make costly fixtures of its own, in silence."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("needs several workers: pytest -n 2 --dist loadgroup")
    assert request.node.nodeid.endswith("@tests/test_architecture.py")
    for item in request.session.items:
        groups = [mark.args[0] for mark in item.iter_markers("xdist_group")]
        assert len(groups) == 1 and item.nodeid.endswith(f"@{groups[0]}"), item.nodeid
