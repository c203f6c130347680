"""The model registry: what is registered, with which tags, and who is champion (see `steps.registry.gate`)."""

import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from filelock import FileLock

from cxr.errors import CxrError
from steps.registry import gate
from steps.registry.gate import CHALLENGER, CHAMPION, Verdict
from steps.runtime import process
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

    from cxr.models.bundle import Bundle
    from steps.registry.champion import ChampionComparison

log = logging.getLogger("cxr.registry")

_ALWAYS = ("operating_point", "status", "reasons", "model_version")  # columns that no answer lacks
HISTORY = "cxr.champions"  # tag of the registered model: who was champion since when and why, the newest last
_KEPT = 15  # entries of the history; a tag has room for 5,000 characters
_PROJECT = Path(__file__).resolve().parents[2]
_ATTEMPTS = 5  # two first aliases at the same moment make one of them fail on sqlite


def register(
    context: Context, bundle: "Bundle", tags: dict[str, str], found: dict[str, Any], rivals: "ChampionComparison"
) -> dict[str, Any]:
    """Register what is to be served of `bundle` and settle who is champion, by its validation scores in `found["val"]`.

    Returns `gate` (verdict and checks), `registered` (name and version), `served` (what `cxr.packaging.package.write`
    returns) and, where there was a champion, `champion` with the comparison on both splits. A bundle that is already
    registered with the same serving settings keeps its version. A failed registration leaves no empty model behind.
    """
    from mlflow.exceptions import MlflowException

    from cxr.packaging import package  # here, not above: moving an alias by hand needs no torch
    from cxr.serving.service import ARTIFACT

    name, client = context.settings.registry.name, context.client
    tags = tags | {"cxr.serving": json.dumps(context.settings.serving.model_dump(), sort_keys=True)}
    made = _version_of(client, name, tags)
    if made is not None:
        log.info("%s version %s is this very bundle: registered before", name, made.version)
        words = made.tags.get("cxr.gate", "registered before")
        return _settled(context, made, words, [], None, rivals)
    folder = context.folder / ARTIFACT
    served = package.write(
        folder, bundle, rivals.manifest, context.settings.serving, context.settings.seed, rivals.ours
    )
    is_new = not _exists(client, name)
    try:
        made = _log_and_register(name, folder, bundle, tags)
    except MlflowException as error:
        if is_new and _exists(client, name) and not client.search_model_versions(f"name='{name}'"):
            client.delete_registered_model(name)
        raise CxrError(f"the registry refused {name!r}: {str(error).splitlines()[0]}") from None
    rules, scores = context.settings.registry.gate, found["val"]["scores"]
    verdict, champion = settle(
        client, name, made, lambda there: gate.judge(rules, scores, there, lambda v: rivals.on("val", v))
    )
    return _settled(context, made, str(verdict), verdict.checks, champion, rivals) | {"served": served}


def _settled(
    context: Context,
    made: "ModelVersion",
    words: str,
    checks: list,
    champion: "ModelVersion | None",
    rivals: "ChampionComparison",
) -> dict[str, Any]:
    context.tag("cxr.model_version", made.version)
    context.tag("cxr.gate", words)
    facts: dict[str, Any] = {
        "registered": {"name": made.name, "version": made.version},
        "gate": {"verdict": words, "checks": checks},
    }
    if champion is not None:
        parts = {split: rivals.on(split, champion) for split in rivals.samples}
        if isinstance(parts["test"], str):
            facts["champion"] = {"version": champion.version, "why_not": parts["test"]}
        else:
            facts["champion"] = {"version": champion.version, "validation": parts["val"], "test": parts["test"]}
    return facts


def settle(
    client: "MlflowClient", name: str, made: "ModelVersion", judge: Callable[["ModelVersion | None"], Verdict]
) -> tuple[Verdict, "ModelVersion | None"]:
    """Give `made` the alias that `judge` decides, given the champion there is; also returns that champion.

    One at a time on a machine: who comes second is compared with who came first. The verdict becomes a tag.
    """
    with alone(name):
        champion = champion_of(client, name)
        verdict = judge(champion)
        client.set_model_version_tag(name, made.version, "cxr.gate", str(verdict))
        if verdict.alias == CHAMPION:
            crown(client, name, made.version, verdict.reason)
        else:
            set_alias(client, name, CHALLENGER, made.version)
    log.info("%s version %s: %s", name, made.version, verdict)
    return verdict, champion


def crown(client: "MlflowClient", name: str, number: int | str, why: str) -> None:
    """Move the alias `champion` in one call, so that there is always exactly one, and note it in the history."""
    set_alias(client, name, CHAMPION, number)
    entry = {"version": str(number), "at": datetime.now(UTC).isoformat(timespec="seconds"), "why": why[:150]}
    client.set_registered_model_tag(name, HISTORY, json.dumps([*history(client, name), entry][-_KEPT:]))
    if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == str(number):
        client.delete_registered_model_alias(name, CHALLENGER)


def history(client: "MlflowClient", name: str) -> list[dict[str, str]]:
    """Who was champion, the newest last."""
    return json.loads(client.get_registered_model(name).tags.get(HISTORY, "[]"))


def wanted_version(client: "MlflowClient", name: str, wish: str) -> str:
    """The version that `wish` names: a number, or `previous` for the champion before the present one."""
    if not _exists(client, name):
        raise CxrError(f"there is no registered model {name!r}; run `mlflow run . -e main` first")
    there = sorted(int(v.version) for v in client.search_model_versions(f"name='{name}'"))
    if wish == "previous":
        present = champion_of(client, name)
        now = str(present.version) if present is not None else None
        before = [e["version"] for e in history(client, name) if e["version"] != now and int(e["version"]) in there]
        if not before:
            raise CxrError(f"{name} has had no other champion than version {now}; give a number: -P version=N")
        return before[-1]
    if not wish.isdigit() or int(wish) not in there:
        raise CxrError(f"version={wish}: {name} has the versions {', '.join(map(str, there))}; or give `previous`")
    return wish


def alone(name: str) -> FileLock:
    """A lock that processes of this machine share for one registered model of one store."""
    mark = sha256(f"{mlflow.get_registry_uri()}\n{name}".encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"cxr-registry-{mark}.lock", mode=0o666)


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
            signature=signature(bundle.network.classes),
            input_example=pd.DataFrame({COLUMN: [phantom.example("normal")]}),
            pip_requirements=str(_PROJECT / "requirements-serve.txt"),
        )
        return mlflow.register_model(logged.model_uri, name, tags=tags)


def signature(classes: tuple[str, ...]) -> "ModelSignature":
    """What a request may hold and an answer always does."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    from cxr.serving.request import COLUMN
    from cxr.serving.service import kinds

    outputs = [ColSpec(kind, column, required=column in _ALWAYS) for column, kind in kinds(classes).items()]
    # An empty operating point is the one that the model was registered with.
    params = [ParamSpec("operating_point", "string", ""), ParamSpec("heatmap", "boolean", False),
              ParamSpec("strict", "boolean", True)]  # fmt: skip
    return ModelSignature(Schema([ColSpec("binary", COLUMN)]), Schema(outputs), ParamSchema(params))


def set_alias(client: "MlflowClient", name: str, alias: str, number: int | str) -> None:
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
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return None


def _version_of(client: "MlflowClient", name: str, tags: dict[str, str]) -> "ModelVersion | None":
    found = client.search_model_versions(f"name='{name}'") if _exists(client, name) else []
    same = ("cxr.bundle_digest", "cxr.serving")
    return next((v for v in found if all(v.tags.get(key) == tags[key] for key in same)), None)


def _exists(client: "MlflowClient", name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        return False
    return True
