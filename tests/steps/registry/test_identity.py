"""A version is what its code is: it changes with everything that ships and decides answers, and with nothing else."""

import shutil
from types import SimpleNamespace

import pytest

from cxr.common import code
from steps.registry import identity, registry
from steps.registry.identity import BUNDLE, CODE, FILES, MADE_BY, SETTINGS
from steps.runtime import step_key
from tests.helpers import ROOT, settings_with

SIGNATURE = registry.signature(("normal", "bacteria", "virus"), "pneumonia")


@pytest.fixture
def project(monkeypatch, tmp_path):
    """A copy of the project that tests may change; digests are of its files."""
    for name in ("cxr", "steps"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements-serve.txt", "requirements-openvino.txt"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    return tmp_path


def shipped(**serving: object) -> dict[str, str]:
    settings = settings_with({f"serving.{name}": value for name, value in serving.items()}).serving
    return identity.shipped(settings, SIGNATURE)


def changed(file) -> None:
    file.write_text(file.read_text() + "\n# a repair\n")


@pytest.mark.parametrize(
    "name",
    ["serving/service.py", "serving/decision.py", "serving/mlflow_model.py", "imaging/decode.py", "common/files.py",
     "errors.py"],
)  # fmt: skip
def test_code_that_ships_makes_another_version(project, name):
    before = shipped()
    changed(project / "cxr" / name)
    assert shipped()[CODE] != before[CODE]


@pytest.mark.parametrize("name", ["cxr/report/page.py", "cxr/training/loop.py", "cxr/demo/app.py", "steps/promote.py"])
def test_code_that_neither_ships_nor_makes_served_files_makes_none(project, name):
    before = shipped()
    changed(project / name)
    assert shipped() == before


@pytest.mark.parametrize("name", ["packaging/fit_ood.py", "evaluation/results.py"])
def test_code_that_packages_makes_one_only_if_the_served_files_change(project, name):
    before = shipped() | {BUNDLE: "b", FILES: "f"}
    changed(project / "cxr" / name)
    now = shipped() | {BUNDLE: "b"}
    assert now[CODE] == before[CODE] and now[MADE_BY] != before[MADE_BY]
    assert not identity.same(now, before)  # not known before they are written
    assert identity.same(now | {FILES: "f"}, before)
    assert not identity.same(now | {FILES: "g"}, before)


def test_pinned_packages_make_another_version(project):
    before, file = shipped(), project / "requirements-serve.txt"
    file.write_text(file.read_text().replace("numpy==", "numpy==9."))
    assert "numpy==9." in file.read_text() and shipped()[CODE] != before[CODE]


@pytest.mark.parametrize(("engine", "counts"), [("onnxruntime", False), ("openvino", True), ("auto", True)])
def test_pins_of_openvino_count_where_it_may_serve(project, engine, counts):
    before, file = shipped(engine=engine), project / "requirements-openvino.txt"
    file.write_text(file.read_text().replace("openvino==", "openvino==9"))
    assert "openvino==9" in file.read_text() and (shipped(engine=engine)[CODE] != before[CODE]) == counts


def test_serving_settings_and_the_signature_make_another_version():
    assert shipped(max_images=16)[SETTINGS] != shipped()[SETTINGS] and shipped(max_images=16)[CODE] == shipped()[CODE]
    other = registry.signature(("normal", "pneumonia"), "pneumonia")
    ours, theirs = (identity.serving_code(signature, "onnxruntime") for signature in (SIGNATURE, other))
    assert theirs != ours == shipped()[CODE]


@pytest.mark.parametrize("name", [BUNDLE, SETTINGS, CODE])
def test_versions_are_the_same_if_all_is_the_same(name):
    tags = shipped() | {BUNDLE: "b", FILES: "f"}
    assert identity.same(tags, tags)
    assert not identity.same(tags, tags | {name: "other"})
    assert not identity.same(tags, {key: value for key, value in tags.items() if key != name})


def test_a_version_that_does_not_say_what_made_its_files_is_another():
    tags = shipped() | {BUNDLE: "b", FILES: "f"}
    assert not identity.same(tags, {key: value for key, value in tags.items() if key not in (MADE_BY, FILES)})


def test_the_newest_of_several_is_found():
    tags = shipped() | {BUNDLE: "b", FILES: "f"}
    versions = [SimpleNamespace(version=number, tags=tags) for number in (2, 10, 9)]
    versions.append(SimpleNamespace(version=11, tags=tags | {CODE: "other"}))
    assert identity.find(versions, tags).version == 10
    assert identity.find(versions, tags | {BUNDLE: "c"}) is None


def test_files_count_by_name_and_content(tmp_path):
    (tmp_path / "a").write_text("1")
    first = identity.of_files(tmp_path)
    assert first == identity.of_files(shutil.copytree(tmp_path, tmp_path.with_name("copy")))
    (tmp_path / "a").write_text("2")
    second = identity.of_files(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, identity.of_files(tmp_path)}) == 3


@pytest.mark.parametrize(("name", "again"), [("serving/service.py", True), ("demo/app.py", False)])
def test_evaluate_runs_again_only_for_code_that_decides_its_result(project, name, again):
    settings = settings_with({})
    before = step_key.components("evaluate", settings, [])
    changed(project / "cxr" / name)
    assert (step_key.components("evaluate", settings, []) != before) == again
