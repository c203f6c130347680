"""Files of a registered model, downloaded and served without loading the model through MLflow."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.common.hardware import cores
from cxr.common.names import ONNXRUNTIME
from cxr.errors import CxrError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from cxr.serving.service import Service
    from steps.runtime.context import Context


def requested_service(context: "Context") -> tuple[str, "Service"]:
    """Load the model that the flag `model_uri` names, or the champion; returns its URI by version and its service.

    Tags the run of `context` with the version.
    """
    from cxr.serving.service import Service

    uri, version = requested(context)
    context.tag("cxr.model_version", version)
    folder = current(uri, service_folder(uri, context.folder / "model"))
    return uri, Service(folder, threads=cores(), version=version)


def requested(context: "Context") -> tuple[str, str]:
    """The URI by version, and the version, of the model that the flag `model_uri` names, or of the champion."""
    champion = f"models:/{context.settings.registry.name}@champion"
    return pinned(context.client, context.flags.get("model_uri", champion))


def service_folder(uri: str, target: Path) -> Path:
    """Download the model at `uri` (`models:/NAME/VERSION`); returns the folder that it serves from.

    Raises:
        UnreachableError: the store or a disk could not be read or written.
        CxrError: the files are gone.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    from cxr.serving.service import ARTIFACT, CONFIG
    from steps.runtime import disks, outage

    target.mkdir(parents=True, exist_ok=True)
    try:
        model = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target)))
    except (MlflowException, OSError) as error:
        if (other := outage.unreachable(error, [disks.temporary()])) is not None:
            raise other from None
        raise CxrError(f"the files of {uri} are gone: {str(error).splitlines()[0]}") from None
    config_files = sorted(model.glob(f"artifacts/{ARTIFACT}/{CONFIG}"))
    if not config_files:
        raise CxrError(f"the files of {uri} are gone: no {CONFIG} among them; register the bundle again with evaluate")
    return config_files[0].parent


def current(uri: str, folder: Path) -> Path:
    """The folder that the model at `uri` serves from; `CxrError` if code of another time made it."""
    from cxr.serving.service import CONFIG, FORMAT

    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("format")
    except (OSError, ValueError, AttributeError):
        return folder  # damaged: `Service` says how
    if found != FORMAT:
        number = uri.rpartition("/")[2]
        raise CxrError(
            f"{uri} was made by other code (its files have format {found}, this code reads {FORMAT}); make a version "
            f"that this code serves: mlflow run . -e repackage -P version={number}"
        )
    return folder


def engine(folder: Path) -> str:
    """What runs the network of the files in `folder`, which `cxr.packaging.package` has written."""
    from cxr.serving.service import CONFIG

    return json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("engine", ONNXRUNTIME)


def logged_model_id(version: "ModelVersion") -> str | None:
    """ID of the logged model that a version was registered from, if any; MLflow 3.17 names it in the source alone."""
    named = str(version.source).removeprefix("models:/")
    return version.model_id or (named if named.startswith("m-") else None)


def pinned(client: "MlflowClient", uri: str) -> tuple[str, str]:
    """Resolve the alias in `uri`; returns the URI by version, and the version."""
    from mlflow.exceptions import MlflowException

    from steps.runtime import runs

    if not uri.startswith("models:/"):
        raise CxrError(f"model_uri: expected models:/NAME@ALIAS or models:/NAME/VERSION, got {uri!r}")
    name, alias, version = *uri.removeprefix("models:/").partition("@")[::2], ""
    try:
        if alias:
            version = str(client.get_model_version_by_alias(name, alias).version)
        else:
            name, _, version = name.rpartition("/")
            client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in runs.ABSENT:
            raise
        reason = str(error).splitlines()[0]
        raise CxrError(f"model_uri={uri}: not in the registry ({reason}); run `mlflow run . -e main` first") from None
    return f"models:/{name}/{version}", version
