"""Fixtures shared by all tests, and the isolation of the suite from the checkout and the user's store."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest

from cxr.common.files import sha256_of

if TYPE_CHECKING:
    from tests.helpers import Deployed
    from tests.s3 import Bucket, Proxy

ROOT = Path(__file__).resolve().parent.parent
# Idle threads of OpenMP would spin and take the cores from other processes of the suite. It is read when torch is
# loaded, so nothing above may import torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What runs and tools leave in a checkout.
LEFT_BY_RUNS = ("mlflow.db*", "mlruns", "mlartifacts", "logs", ".hypothesis")
BEFORE = pytest.StashKey[dict[str, str]]()
# Tests that use one of these run whole steps or export a network to ONNX; `refused` builds on `workflow`.
SLOW_FIXTURES = {"new_workflow", "workflow", "run_step", "served", "tracking_server"}
# Fixtures that are made once for all files, and the group of the tests that use them.
SHARED = {"workflow": "workflow", "bucket": "s3", "tracking_server": "tracking_server"}
# Groups of tests that take longer than others; the longest first.
GROUPS = (
    "workflow",
    "tracking_server",
    "tests/steps/test_search.py",
    "several processes",
    "real_bundle",
    "s3",
    "scoring_server",
)


def pytest_configure(config: pytest.Config) -> None:
    """Note the state of the checkout before tests are collected; Hypothesis writes files even then."""
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist takes tests in the order that is made below
        config.option.loadscopereorder = False
    config.stash[BEFORE] = checksums()
    scratch = tempfile.TemporaryDirectory(prefix="cxr-hypothesis-")
    config.add_cleanup(scratch.cleanup)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = scratch.name
    from hypothesis import settings

    # Examples are the same in every run: a gate that fails by chance says nothing of the change that it is asked about.
    settings.register_profile("gate", derandomize=True)
    settings.load_profile("gate")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests with a slow fixture as slow, and every test with its group; those of a group share a process.

    The group is that of a shared fixture, else the file, so that its own fixtures are made once, too. A file can name
    another; of two names pytest-xdist would make a third group. Of several processes, none is left alone at the end
    with a long group: those in `GROUPS` come first, then others with slow tests.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if SLOW_FIXTURES & fixtures:
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("xdist_group") is None:
            shared = (group for fixture, group in SHARED.items() if fixture in fixtures)
            item.add_marker(pytest.mark.xdist_group(next(shared, item.nodeid.partition("::")[0])))
    if hasattr(config, "workerinput"):
        items.sort(key=rank)


def rank(item: pytest.Item) -> int:
    """Place of a test among others: by its group, then whether it is slow."""
    group = item.get_closest_marker("xdist_group").args[0]
    if group in GROUPS:
        return GROUPS.index(group)
    return len(GROUPS) + (item.get_closest_marker("slow") is None)


def checksums() -> dict[str, str]:
    """SHA-256 of each file that runs left in the checkout; folders count as well, with an empty text."""
    tops = [top for pattern in LEFT_BY_RUNS for top in ROOT.glob(pattern)]
    paths = [*tops, *(path for top in tops for path in top.rglob("*"))]
    return {str(path.relative_to(ROOT)): sha256_of(path) if path.is_file() else "" for path in paths}


@pytest.fixture(scope="session")
def untouched_checkout(pytestconfig):
    """Fail the suite if it changed the store, the logs or any other file that runs left in the checkout."""
    yield
    before, after = pytestconfig.stash[BEFORE], checksums()
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        pytest.fail(
            f"the suite changed files of {ROOT}: {', '.join(changed[:5])}{more}; every test must use a store, logs and "
            "caches of its own (unless another run was active in this checkout: then run the suite again)",
            pytrace=False,
        )


@pytest.fixture(scope="session", autouse=True)
def session_store(untouched_checkout, tmp_path_factory):
    """URI of an empty store. It, a working directory and caches of the session replace those of the user.

    The suite may itself run inside an MLflow run (`mlflow run . -e test`), and without a tracking URI MLflow uses
    `mlflow.db` and `mlruns` of the working directory, so both are set, for this process and those it starts.
    """
    # A suite started in the background inherits that Ctrl-C is ignored, and so would the processes it interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = tmp_path_factory.mktemp("session")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "_MLFLOW_"))]:
            patch.delenv(name)
        patch.setenv("MLFLOW_TRACKING_URI", uri)  # also the registry's, as long as no other is set
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("TORCH_HOME", str(folder / "cache/torch"))
        patch.setenv("HF_HOME", str(folder / "cache/huggingface"))
        patch.chdir(folder)
        mlflow.set_tracking_uri(uri)
        yield uri


@pytest.fixture(autouse=True)
def _restore_session_store(session_store):
    """Start each test with the session's store; MLflow keeps the last tracking URI of a process."""
    mlflow.set_tracking_uri(session_store)
    os.environ["MLFLOW_TRACKING_URI"] = session_store  # MLflow does not set it if it has this URI already


@pytest.fixture(scope="session")
def real_data(pytestconfig) -> Path:
    """Folder of real X-rays: the one that CXR_DATA names, or the copy beside the checkout."""
    default = ROOT.parent / "shared/data/chest_xray_224"
    folder = pytestconfig.invocation_params.dir / (os.environ.get("CXR_DATA") or default)
    if not folder.is_dir():
        pytest.skip(f"no real X-rays at {folder}; set CXR_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def one_export():
    """A network is exported to ONNX once in a process, since that takes seconds.

    The export itself has tests of its own, which do without this.
    """
    from cxr.packaging import carry, export_onnx, package
    from tests.helpers import identity

    made: dict[str, bytes] = {}

    def once(bundle):
        key = identity(bundle)
        if key not in made:
            made[key] = export_onnx.to_onnx(bundle)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (carry, package):
            patch.setattr(module, "to_onnx", once)
        yield


@pytest.fixture(scope="session")
def served(tmp_path_factory, one_export) -> "Deployed":
    """A small network, packaged for serving."""
    from tests.helpers import deployed

    return deployed(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def s3_proxy() -> "Iterator[Proxy]":
    """An S3 server on 127.0.0.1, behind a proxy that can fail."""
    from tests.s3 import running_proxy

    with running_proxy() as proxy:
        yield proxy


@pytest.fixture
def bucket(s3_proxy, monkeypatch) -> "Iterator[Bucket]":
    """An empty bucket of that server, which this process and those it starts find by their environment."""
    from tests.s3 import emptied

    with emptied(s3_proxy, monkeypatch) as made:
        yield made
