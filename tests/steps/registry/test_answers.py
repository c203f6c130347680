"""A version answers by the code that ships with it, in a process of its own that never mixes it with this project."""

import shutil
import subprocess
import sys

import pytest

import cxr
from cxr.errors import CxrError
from steps.registry.answers import answering, other_packages
from tests.helpers import ROOT

# A model of another project, as far as code goes: it has a package `cxr` of its own.
MODEL = """
import os, sys
import mlflow
import pandas as pd
from cxr.rules import LABEL

class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        print("words that must not reach standard output")
        images, point = list(model_input["image"]), (params or {})["operating_point"]
        if b"stop" in images:
            os._exit(3)
        if b"fail" in images:
            raise ValueError("no\\nanswer")
        return pd.DataFrame({
            "label": [LABEL + os.environ.get("CXR_ANSWERS", "")] * len(images),
            "probability_x": [0.1 + 0.2 if image != b"none" else None for image in images],
            "operating_point": [point] * len(images),
            "heatmap": ["large"] * len(images),
            "model_version": ["1"] * len(images),
        })

mlflow.models.set_model(Model())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a logged model, made in a process of its own, since it brings another `cxr`."""
    folder = tmp_path_factory.mktemp("answers")
    (folder / "cxr").mkdir()
    (folder / "cxr/__init__.py").write_text("")
    (folder / "cxr/rules.py").write_text("LABEL = 'by its own code'\n")
    (folder / "model.py").write_text(MODEL)
    program = (
        "import mlflow\n"
        "from mlflow.models import ModelSignature\n"
        "from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema\n"
        "params = ParamSchema([ParamSpec('operating_point', 'string', ''), ParamSpec('strict', 'boolean', True)])\n"
        "signature = ModelSignature(Schema([ColSpec('binary', 'image')]), None, params)\n"
        "mlflow.pyfunc.save_model('model', python_model='model.py', code_paths=['cxr'], signature=signature,\n"
        "                         pip_requirements=['numpy==0.1', 'mlflow-skinny', 'nowhere==1'])\n"
    )
    made = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return folder / "model"


@pytest.fixture
def images(tmp_path):
    def write(*contents: bytes) -> list[str]:
        for number, content in enumerate(contents):
            (tmp_path / f"{number}.png").write_bytes(content)
        return [str(tmp_path / f"{number}.png") for number in range(len(contents))]

    return write


def test_answers_come_from_the_code_of_the_model(model, images, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # this project's `cxr` must not come first
    monkeypatch.setenv("CXR_ANSWERS", str(tmp_path))  # what is compared is no answer of a service in use
    with answering("version 1", model, tmp_path / "log") as version:
        rows = version.answer(images(b"a", b"none"), "youden")
        assert version.answer(images(b"a")) == [rows[0] | {"operating_point": ""}]
    assert rows[0] == {"label": "by its own code", "probability_x": 0.1 + 0.2, "operating_point": "youden"}
    assert rows[1]["probability_x"] is None
    assert cxr.__file__ == str(ROOT / "cxr/__init__.py") and not hasattr(cxr, "rules")
    assert "words that must not reach" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"fail", r"version 1 cannot answer in this environment \(.*no answer"),
        (b"stop", "the process of version 1 ended"),
    ],
)
def test_a_model_that_fails_is_told_in_one_line(model, images, tmp_path, content, words):
    with answering("version 1", model, tmp_path / "log") as version, pytest.raises(CxrError, match=words):
        version.answer(images(content))


def test_a_model_that_cannot_be_loaded(model, tmp_path):
    with (
        pytest.raises(CxrError, match="version 1 cannot answer in this environment"),
        answering("version 1", tmp_path, tmp_path / "log"),
    ):
        pass


def test_code_of_this_project_is_never_taken_for_that_of_the_model(model, tmp_path, monkeypatch):
    """A model whose own code is gone would be answered for by whatever `cxr` is found."""
    broken = shutil.copytree(model, tmp_path / "model")
    shutil.rmtree(broken / "code")
    (tmp_path / "elsewhere/cxr").mkdir(parents=True)
    (tmp_path / "elsewhere/cxr/__init__.py").write_text("")
    (tmp_path / "elsewhere/cxr/rules.py").write_text("LABEL = 'by other code'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    with (
        pytest.raises(CxrError, match="instead of the model; remove that folder from PYTHONPATH|cannot answer"),
        answering("version 1", broken, tmp_path / "log"),
    ):
        pass


def test_the_process_ends_with_the_block_even_after_an_error(model, images, tmp_path):
    def interrupted():
        with answering("version 1", model, tmp_path / "log") as version:
            started.append(version._process)
            raise KeyboardInterrupt

    started: list[subprocess.Popen] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert started[0].poll() is not None


def test_packages_that_are_others_here_are_told(model):
    numpy, nowhere = other_packages(model)
    assert numpy.startswith("numpy ==0.1 (here: ") and nowhere == "nowhere ==1 (here: none)"
    assert other_packages(model / "code") == []
