"""The model registry: registration of versions with their tags, and the aliases (see `steps.registry.gate`)."""

import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
from filelock import FileLock

from cxr.common import code
from cxr.common.files import sha256_of_text
from cxr.errors import CxrError
from cxr.evaluation.results import GateResult, RegisteredVersion, Registration, Scores
from steps.registry import gate
from steps.registry.gate import CHALLENGER, CHAMPION, Verdict
from steps.runtime import process
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from numpy import ndarray

    from cxr.evaluation.scores import Sample
    from cxr.loading.rasters import RasterDataset
    from cxr.models.bundle import Bundle
    from cxr.serving.decision import Band
    from steps.registry.champion import ChampionComparer

log = logging.getLogger("cxr.registry")

_ALWAYS = ("operating_point", "status", "reasons", "model_version")  # columns that every row of an answer has
HISTORY = "cxr.champions"  # tag of the registered model: its champions, since when and why, the newest last
_KEPT = 15  # entries of the history; a tag has room for 5,000 characters
_PROJECT = Path(__file__).resolve().parents[2]
_ATTEMPTS = 5  # on sqlite, one of two processes that set the first alias at the same moment fails


def register(
    context: Context,
    bundle: "Bundle",
    datasets: "dict[str, RasterDataset]",
    tags: dict[str, str],
    scores: Scores,
    comparer: "ChampionComparer",
    evaluated: "dict[str, ndarray]",
    samples: "dict[str, Sample]",
    bands: "dict[str, Band] | None" = None,
) -> Registration:
    """Register the files to serve for `bundle` and settle who is champion, by the validation `scores`.

    `datasets` has the rasters of "train", "val" and "test" at the input of the bundle, `evaluated` the probabilities of
    "val" and "test", `samples` these images, and `bands` those in which images are referred, by operating point (see
    `cxr.packaging.package`).

    A bundle that is registered already with the same serving settings and code keeps its version. A failed registration
    leaves no empty model behind.
    """
    from mlflow.exceptions import MlflowException

    from cxr.packaging import package  # here, not above: moving an alias by hand needs no torch
    from cxr.serving.service import ARTIFACT

    settings, client = context.settings, context.client
    name = settings.registry.name
    serving = json.dumps(settings.serving.model_dump(), sort_keys=True)
    tags = tags | {"cxr.serving": serving, "cxr.serving_code": serving_code()}
    earlier = _version_of(client, name, tags)
    if earlier is not None and "cxr.gate" in earlier.tags:
        return _registered_before(context, earlier)
    folder = context.folder / ARTIFACT
    served = package.write(folder, bundle, datasets, settings.serving, settings.seed, evaluated, samples, bands)
    with alone(name):
        # Another process may have packaged the same bundle meanwhile, or been killed before its version was judged.
        earlier = _version_of(client, name, tags)
        if earlier is not None and "cxr.gate" in earlier.tags:
            return _registered_before(context, earlier)
        is_new = not _exists(client, name)
        try:
            version = earlier or _log_and_register(name, folder, bundle, tags)
        except MlflowException as error:
            if is_new and _exists(client, name) and not client.search_model_versions(f"name='{name}'"):
                client.delete_registered_model(name)
            raise CxrError(f"the registry refused {name!r}: {str(error).splitlines()[0]}") from None
        rules = settings.registry.gate
        judge = partial(gate.judge, rules, scores, compare=comparer.compare, new=tags, finding=bundle.finding)
        verdict, champion = settle(client, name, version, judge)
    return Registration(
        registered=_registered(context, version, verdict.result()),
        gate=verdict.result(),
        champion=comparer.compare(champion) if champion is not None else None,
        served=served,
    )


def _registered_before(context: Context, version: "ModelVersion") -> Registration:
    log.info("%s version %s is this bundle: registered before", version.name, version.version)
    gate_result = GateResult(verdict=version.tags.get("cxr.gate", "registered before"), checks=[])
    return Registration(registered=_registered(context, version, gate_result), gate=gate_result)


def _registered(context: Context, version: "ModelVersion", gate_result: GateResult) -> RegisteredVersion:
    """Tag the run with its version and the verdict of the gate."""
    context.tag("cxr.model_version", version.version)
    context.tag("cxr.gate", gate_result.verdict)
    return RegisteredVersion(name=version.name, version=int(version.version))


def settle(
    client: "MlflowClient", name: str, version: "ModelVersion", judge: Callable[["ModelVersion | None"], Verdict]
) -> tuple[Verdict, "ModelVersion | None"]:
    """Give `version` the alias that `judge` decides on; returns the verdict and the champion it was judged against.

    Call it within `alone(name)`: the second of two versions is then compared with the first. The verdict becomes a tag,
    last, so that a version without it is known as not judged.
    """
    champion = champion_of(client, name)
    verdict = judge(champion)
    if verdict.alias == CHAMPION:
        crown(client, name, version.version, verdict.reason)
    else:
        set_alias(client, name, CHALLENGER, version.version)
    client.set_model_version_tag(name, version.version, "cxr.gate", str(verdict))
    log.info("%s version %s: %s", name, version.version, verdict)
    return verdict, champion


def crown(client: "MlflowClient", name: str, number: int | str, why: str) -> None:
    """Move the alias `champion` in one call, so that there is always exactly one, and record it in the history."""
    set_alias(client, name, CHAMPION, number)
    entry = {"version": str(number), "at": datetime.now(UTC).isoformat(timespec="seconds"), "why": why[:150]}
    client.set_registered_model_tag(name, HISTORY, json.dumps([*history(client, name), entry][-_KEPT:]))
    if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == str(number):
        client.delete_registered_model_alias(name, CHALLENGER)


def history(client: "MlflowClient", name: str) -> list[dict[str, str]]:
    """Past and present champions, the newest last."""
    return json.loads(client.get_registered_model(name).tags.get(HISTORY, "[]"))


def wanted_version(client: "MlflowClient", name: str, wanted: str) -> str:
    """The version that `wanted` names: a number, or `previous` for the champion before the present one."""
    if not _exists(client, name):
        raise CxrError(f"there is no registered model {name!r}; run `mlflow run . -e main` first")
    versions = sorted(int(v.version) for v in client.search_model_versions(f"name='{name}'"))
    if wanted == "previous":
        champion = champion_of(client, name)
        present = str(champion.version) if champion is not None else None
        champions = [entry["version"] for entry in history(client, name)]
        earlier = [version for version in champions if version != present and int(version) in versions]
        if not earlier:
            raise CxrError(f"{name} has had no other champion than version {present}; give a number: -P version=N")
        return earlier[-1]
    if not wanted.isdigit() or int(wanted) not in versions:
        known = ", ".join(map(str, versions))
        raise CxrError(f"version={wanted}: {name} has the versions {known}; give one of them, or `previous`")
    return wanted


def alone(name: str) -> FileLock:
    """A lock on one registered model of one store, shared by the processes of this machine."""
    store = sha256(f"{mlflow.get_registry_uri()}\n{name}".encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"cxr-registry-{store}.lock", mode=0o666)


def _log_and_register(name: str, folder: Path, bundle: "Bundle", tags: dict[str, str]) -> "ModelVersion":
    import pandas as pd

    from cxr.datasets import phantom
    from cxr.serving.request import COLUMN
    from cxr.serving.service import ARTIFACT

    with process.unbroken(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints of MLflow about its own defaults
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(_PROJECT / "cxr/serving/mlflow_model.py"),
            artifacts={ARTIFACT: str(folder)},
            code_paths=[str(_PROJECT / "cxr")],
            signature=signature(bundle.network.classes, bundle.finding),
            input_example=pd.DataFrame({COLUMN: [phantom.example("normal")]}),
            pip_requirements=requirements(),
        )
        return mlflow.register_model(logged.model_uri, name, tags=tags)


def serving_code() -> str:
    """Digest of everything but weights and settings that decides how a version answers.

    That is the code that packages and serves it, and the requirements it is installed with.
    """
    computed = code.digest("cxr.serving.mlflow_model", "cxr.packaging.package")
    return sha256_of_text("\n".join([computed, *requirements()]))[:16]


def requirements() -> list[str]:
    """What a registered model needs to be served: the pins of `requirements-serve.txt`, without the hashes.

    MLflow 3.17 does not recognise `mlflow-skinny` on a line with hashes and adds all of `mlflow`, without one; pip then
    refuses the whole file.
    """
    lines = (_PROJECT / "requirements-serve.txt").read_text(encoding="utf-8").splitlines()
    return [line.removesuffix("\\").strip() for line in lines if line[:1].isalnum()]


def signature(classes: tuple[str, ...], finding: str) -> "ModelSignature":
    """The MLflow signature of a served model: columns of requests and answers, and parameters."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

    from cxr.serving.request import COLUMN
    from cxr.serving.service import column_types

    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(kind, column, required=column in _ALWAYS) for column, kind in column_types(classes, finding).items()
    ]
    params = [
        ParamSpec("operating_point", "string", ""),  # empty: the one that the model was registered with
        ParamSpec("heatmap", "boolean", False),
        ParamSpec("strict", "boolean", True),
    ]
    return ModelSignature(Schema([ColSpec("binary", COLUMN)]), Schema(outputs), ParamSchema(params))


def set_alias(client: "MlflowClient", name: str, alias: str, number: int | str) -> None:
    """Set an alias of the registered model, with a few attempts."""
    from mlflow.exceptions import MlflowException

    for attempt in range(_ATTEMPTS):
        try:
            client.set_registered_model_alias(name, alias, str(number))
            return
        except MlflowException:
            if attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(0.2 * (attempt + 1) + float(np.random.default_rng().random()) * 0.2)


def champion_of(client: "MlflowClient", name: str) -> "ModelVersion | None":
    """The version with the alias `champion`, if there is one."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return None


def _version_of(client: "MlflowClient", name: str, tags: dict[str, str]) -> "ModelVersion | None":
    """The version registered before for the same bundle, serving settings and code, if there is one."""
    versions = client.search_model_versions(f"name='{name}'") if _exists(client, name) else []
    same = (gate.BUNDLE, "cxr.serving", "cxr.serving_code")
    return next((v for v in versions if all(v.tags.get(key) == tags[key] for key in same)), None)


def _exists(client: "MlflowClient", name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        return False
    return True
