"""The model registry: what is registered, with which tags, and who is champion.

The first version becomes `champion`. A later one becomes `challenger`, and takes over where its validation metric is
better on the same split; a draw keeps the champion.
"""

import logging
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.bundle import Bundle
from cxr.errors import CxrError
from steps.context import Context

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("cxr.registry")

CHAMPION, CHALLENGER = "champion", "challenger"
REQUIREMENTS = ("mlflow", "torch", "torchvision", "numpy", "pandas", "pillow", "pydantic", "pyyaml", "scikit-learn")
REQUIREMENTS += ("tqdm",)
_PACKAGE = Path(__file__).resolve().parent.parent / "cxr"
_ATTEMPTS = 5  # two first aliases at the same moment make one of them fail on sqlite


def register(context: Context, folder: Path, bundle: Bundle, tags: dict[str, str]) -> tuple["ModelVersion", str]:
    """Register the bundle in `folder` and settle who is champion; returns the version and the verdict.

    A bundle that is registered already keeps its version. A registration that fails leaves no empty model behind.
    """
    from mlflow.exceptions import MlflowException

    name, client = context.settings.registry.name, context.client
    known = _version_of(client, name, tags["cxr.bundle_digest"])
    if known is not None:
        verdict = known.tags.get("cxr.gate", "registered before")
        log.info("%s version %s is this very bundle: registered before", name, known.version)
        return known, verdict
    is_new = not _exists(client, name)
    try:
        made = _log_and_register(name, folder, bundle, tags)
    except MlflowException as error:
        if is_new and _exists(client, name) and not client.search_model_versions(f"name='{name}'"):
            client.delete_registered_model(name)
        raise CxrError(f"the registry refused {name!r}: {str(error).splitlines()[0]}") from None
    return made, settle(client, name, made)


def settle(client: "MlflowClient", name: str, made: "ModelVersion") -> str:
    """Give `made` its alias by comparing it with the champion; returns the reason, which becomes a tag."""
    champion = _champion(client, name)
    if champion is None:
        alias, verdict = CHAMPION, "champion: the first version"
    else:
        alias, verdict = _compare(made, champion)
    client.set_model_version_tag(name, made.version, "cxr.gate", verdict)
    _set_alias(client, name, alias, made.version)
    log.info("%s version %s: %s", name, made.version, verdict)
    return verdict


def _compare(made: "ModelVersion", champion: "ModelVersion") -> tuple[str, str]:
    for tag, what in (("cxr.manifest_digest", "split"), ("cxr.val_metric_name", "metric")):
        if made.tags.get(tag) != champion.tags.get(tag):
            return CHALLENGER, f"challenger: another {what} than the champion's (version {champion.version})"
    ours, theirs = float(made.tags["cxr.val_metric"]), float(champion.tags["cxr.val_metric"])
    words = f"validation metric {ours:.4f} against {theirs:.4f} of version {champion.version}"
    return (CHAMPION, f"champion: {words}") if ours > theirs else (CHALLENGER, f"challenger: {words}")


def _log_and_register(name: str, folder: Path, bundle: Bundle, tags: dict[str, str]) -> "ModelVersion":
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    probabilities = [f"probability_{c}" for c in bundle.network.classes]
    probabilities += [] if "pneumonia" in bundle.network.classes else ["probability_pneumonia"]
    outputs = Schema([ColSpec("string", "label"), *(ColSpec("double", p) for p in probabilities)])
    signature = ModelSignature(inputs=Schema([ColSpec("binary", "image")]), outputs=outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints of MLflow about its own defaults
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(_PACKAGE / "served.py"),
            artifacts={"bundle": str(folder)},
            code_paths=[str(_PACKAGE)],
            signature=signature,
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
        )
        return mlflow.register_model(logged.model_uri, name, tags=tags)


def _set_alias(client: "MlflowClient", name: str, alias: str, number: int | str) -> None:
    from mlflow.exceptions import MlflowException

    for attempt in range(_ATTEMPTS):
        try:
            client.set_registered_model_alias(name, alias, str(number))
            return
        except MlflowException:
            if attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(0.2 * (attempt + 1) + float(np.random.default_rng().random()) * 0.2)


def _champion(client: "MlflowClient", name: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        return None


def _version_of(client: "MlflowClient", name: str, digest: str) -> "ModelVersion | None":
    found = client.search_model_versions(f"name='{name}'") if _exists(client, name) else []
    return next((v for v in found if v.tags.get("cxr.bundle_digest") == digest), None)


def _exists(client: "MlflowClient", name: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException:
        return False
    return True
