"""The model registry: registration of versions with their tags, and the aliases (see `steps.registry.gate`)."""

import json
import logging
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np

from cxr.errors import CxrError
from cxr.evaluation.results import GateResult, RegisteredVersion, Registration, Scores
from steps.registry import entries, gate, identity, model_files
from steps.registry.gate import CHALLENGER, CHAMPION, Verdict
from steps.registry.lock import alone
from steps.runtime import process, runs
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo
    from numpy import ndarray

    from cxr.evaluation.scores import Sample
    from cxr.loading.rasters import RasterDataset
    from cxr.models.bundle import Bundle
    from cxr.serving.decision import Band
    from steps.registry.champion import ChampionComparer

log = logging.getLogger("cxr.registry")

_ALWAYS = ("operating_point", "status", "reasons", "model_version")  # columns that every row of an answer has
EVALUATED_BY = "cxr.evaluate_run_id"  # tag of a version: the run that evaluated it, or went on with that
HISTORY = "cxr.champions"  # tag of the registered model: its champions, since when and why, the newest last
_KEPT = 15  # entries of the history
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

    A bundle that is registered already and has not changed since keeps its version (see `steps.registry.identity`). A
    failed registration leaves no empty model behind.
    """
    from cxr.packaging import package  # here, not above: moving an alias by hand needs no torch
    from cxr.serving.service import ARTIFACT

    settings, client = context.settings, context.client
    name = settings.registry.name
    tags = tags | identity.shipped(settings.serving, signature(bundle.network.classes, bundle.finding))
    earlier = identity.find(versions(client, name), tags)
    if earlier is not None and "cxr.gate" in earlier.tags:
        return _registered_before(context, earlier)
    folder = context.folder / ARTIFACT
    served = package.write(folder, bundle, datasets, settings.serving, settings.seed, evaluated, samples, bands)
    tags[identity.FILES] = identity.of_files(folder)
    # Before anyone has to wait: it takes seconds, and minutes where ten evaluate at once.
    model = (folder, bundle.network.classes, bundle.finding)
    logged = log_model(*model) if earlier is None else None
    with alone(client, name):
        # Another process may have packaged the same bundle meanwhile, or been killed before its version was judged.
        earlier = identity.find(versions(client, name), tags)
        if earlier is not None and "cxr.gate" in earlier.tags:
            return _registered_before(context, earlier)
        if earlier is not None:
            client.set_model_version_tag(name, earlier.version, EVALUATED_BY, context.run_id)
        version = earlier or add(client, name, logged or log_model(*model), tags)
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

    Call it within `alone`, so that the second of two versions is compared with the first. The verdict becomes a tag,
    last, so that a version without it is known as not judged. One that was interrupted after it had become champion is
    judged against the champion before it, and gives the alias back if it fails now.
    """
    champion = champion_of(client, name)
    is_champion = champion is not None and int(champion.version) == int(version.version)
    if is_champion:
        champion = _champion_before(client, name, version.version)
    verdict = judge(champion)
    if verdict.alias == CHAMPION:
        crown(client, name, version.version, verdict.reason)
    elif is_champion and champion is not None:
        crown(client, name, champion.version, f"version {version.version} was not judged, and fails now")
    elif is_champion:
        client.delete_registered_model_alias(name, CHAMPION)
    if verdict.alias == CHALLENGER:
        set_alias(client, name, CHALLENGER, version.version)
    client.set_model_version_tag(name, version.version, "cxr.gate", str(verdict))
    log.info("%s version %s: %s", name, version.version, verdict)
    return verdict, champion


def crown(client: "MlflowClient", name: str, number: int | str, why: str) -> None:
    """Move the alias `champion` in one call, so that there is always exactly one, and record it in the history."""
    set_alias(client, name, CHAMPION, number)
    entry = {"version": str(number), "at": datetime.now(UTC).isoformat(timespec="seconds"), "why": why[:150]}
    past = history(client, name)
    if past and past[-1]["version"] == str(number):  # crowned by a run that was interrupted
        past.pop()
    client.set_registered_model_tag(name, HISTORY, entries.text([*past, entry], _KEPT))
    if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == str(number):
        client.delete_registered_model_alias(name, CHALLENGER)


def history(client: "MlflowClient", name: str) -> list[dict[str, str]]:
    """Past and present champions, the newest last; none if somebody has edited the tag."""
    try:
        found = json.loads(client.get_registered_model(name).tags.get(HISTORY, "[]"))
        return [{**entry, "version": str(int(str(entry["version"])))} for entry in found]
    except (ValueError, TypeError, KeyError):
        log.warning("tag %s of %s was edited and cannot be read; it is ignored", HISTORY, name)
        return []


def _champion_before(client: "MlflowClient", name: str, number: int | str | None) -> "ModelVersion | None":
    """The last champion other than version `number` that still exists."""
    there = {str(version.version): version for version in versions(client, name)}
    numbers = [entry["version"] for entry in history(client, name) if entry["version"] != str(number)]
    return next((there[number] for number in reversed(numbers) if number in there), None)


def wanted_version(client: "MlflowClient", name: str, wanted: str) -> str:
    """The version that `wanted` names: a number, `champion`, or `previous` for the champion before the present one."""
    if not _exists(client, name):
        raise CxrError(f"there is no registered model {name!r}; run `mlflow run . -e main` first")
    numbers = sorted(int(v.version) for v in versions(client, name))
    if wanted == CHAMPION:
        champion = champion_of(client, name)
        if champion is None:
            raise CxrError(f"{name} has no champion; give a number: -P version=N")
        return str(champion.version)
    if wanted == "previous":
        champion = champion_of(client, name)
        present = champion.version if champion is not None else None
        before = _champion_before(client, name, present)
        if before is None:
            raise CxrError(f"{name} has had no other champion than version {present}; give a number: -P version=N")
        return str(before.version)
    if not wanted.isdecimal() or int(wanted) not in numbers:
        known = ", ".join(map(str, numbers))
        raise CxrError(f"version={wanted}: {name} has the versions {known}; give one of them, `champion` or `previous`")
    return str(int(wanted))


def log_model(folder: Path, classes: tuple[str, ...], finding: str) -> "ModelInfo":
    """Log the served files in `folder` with the code and the requirements that serve them, as a model of this run."""
    import pandas as pd

    from cxr.datasets import phantom
    from cxr.serving.request import COLUMN
    from cxr.serving.service import ARTIFACT

    with process.unbroken(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints of MLflow about its own defaults
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(_PROJECT / "cxr/serving/mlflow_model.py"),
            artifacts={ARTIFACT: str(folder)},
            code_paths=[str(_PROJECT / "cxr")],
            signature=signature(classes, finding),
            input_example=pd.DataFrame({COLUMN: [phantom.example("normal")]}),
            pip_requirements=identity.requirements(model_files.engine(folder)),
        )


def add(client: "MlflowClient", name: str, logged: "ModelInfo", tags: dict[str, str]) -> "ModelVersion":
    """Register a logged model as a version with `tags`, or leave no empty registered model. Call within `alone`."""
    from mlflow.exceptions import MlflowException

    is_new = not _exists(client, name)
    try:
        with process.unbroken():
            return mlflow.register_model(logged.model_uri, name, tags=tags)
    except MlflowException as error:
        with suppress(MlflowException):  # the refusal matters more than what is left of it
            if is_new and _exists(client, name) and not versions(client, name):
                client.delete_registered_model(name)
        raise CxrError(f"the registry refused {name!r}: {str(error).splitlines()[0]}") from None


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
        ParamSpec("measured", "boolean", False),  # adds what `monitor` needs; of `predict -P engine=spark`
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
    """The version with the alias `champion`, if there is one; any other error of the store is raised."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in runs.ABSENT:
            raise
        return None


def versions(client: "MlflowClient", name: str) -> "list[ModelVersion]":
    """All versions of a registered model; none if there is no such model."""
    return list(client.search_model_versions(f"name='{name}'")) if _exists(client, name) else []


def _exists(client: "MlflowClient", name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in runs.ABSENT:
            raise
        return False
    return True
