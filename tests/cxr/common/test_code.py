"""A digest of code changes with every file and library that computes, and with nothing else."""

import pytest

from cxr.common import code


def names(*modules):
    return {file.relative_to(code.PROJECT).as_posix() for file in code.sources(*modules)}


@pytest.fixture
def project(monkeypatch, tmp_path):
    files = {
        "cxr/__init__.py": "",
        "cxr/pixels/__init__.py": "",
        "cxr/pixels/read.py": "import PIL\nfrom cxr.pixels import window\n",
        "cxr/pixels/window.py": "def run():\n    import pydicom\n    from cxr.shared import x\n",
        "cxr/pixels/page.html": "beside no module that is reached",
        "cxr/shared.py": "x = 1",
        "cxr/shared.txt": "read by it",
        "cxr/unused.py": "import torch",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["cxr/pixels/__init__.py", "cxr/pixels/read.py", "cxr/pixels/window.py", "cxr/shared.py", "cxr/shared.txt"]
)
def test_what_is_reached_by_imports_changes_it(project, name):
    before = code.digest("cxr.pixels.read")
    (project / name).write_text("changed = 1")
    assert code.digest("cxr.pixels.read") != before


@pytest.mark.parametrize("name", ["cxr/unused.py", "cxr/pixels/page.html"])
def test_what_is_not_reached_does_not(project, name):
    before = code.digest("cxr.pixels.read")
    (project / name).write_text("changed = 1")
    assert code.digest("cxr.pixels.read") == before


def test_libraries_are_those_that_are_imported_and_the_decoders_they_find_by_themselves(project, monkeypatch):
    assert set(code.libraries("cxr.pixels.read")) == {"pillow", "pydicom", "python-gdcm"}
    before = code.digest("cxr.pixels.read")
    monkeypatch.setattr(code, "version", lambda name: "next")
    assert code.digest("cxr.pixels.read") != before


def test_cached_pixels_depend_on_every_decoder():
    files = names("cxr.imaging.reader")
    assert {f"cxr/imaging/{name}.py" for name in ("decode", "dicom", "dicom_worker", "preprocess")} <= files
    assert {"pillow", "pydicom", "python-gdcm", "numpy"} <= set(code.libraries("cxr.imaging.reader"))
    features = names("cxr.loading.feature_cache")
    assert files <= features
    assert {"cxr/loading/augment.py", "cxr/models/efficientnet_lite.py", "cxr/models/normalise.py"} <= features
