"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

from tests.helpers import Deployed, deployed

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real X-rays: the folder named by CXR_DATA, or the copy that lies beside the checkout."""
    folder = Path(os.environ.get("CXR_DATA") or ROOT.parent / "shared/data/chest_xray_224")
    if not folder.is_dir():
        pytest.skip(f"no real X-rays at {folder}; name their folder in CXR_DATA")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_store_of_the_user(tmp_path_factory):
    """The suite may itself run inside an MLflow run: tests must neither see nor touch that store."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Deployed:
    """What is registered of a small network; making it takes seconds."""
    return deployed(tmp_path_factory.mktemp("served"))
