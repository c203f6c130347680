"""The files of a registered model: what is served, without loading it through MLflow."""

from pathlib import Path
from typing import TYPE_CHECKING

from cxr.common.hardware import cores
from cxr.errors import CxrError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from cxr.serving.service import Service
    from steps.runtime.context import Context


def asked_for(context: "Context") -> tuple[str, "Service"]:
    """The registered model that `model_uri` names, else the champion: its address by version, and itself at work.

    The run of `context` is tagged with the version.
    """
    from cxr.serving.service import Service

    default = f"models:/{context.settings.registry.name}@champion"
    uri, version = pinned(context.client, context.flags.get("model_uri", default))
    context.tag("cxr.model_version", version)
    return uri, Service(service_folder(uri, context.folder / "model"), threads=cores(), version=version)


def service_folder(uri: str, target: Path) -> Path:
    """Download the model at `uri` (`models:/NAME/VERSION`); returns the folder that it serves from."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from cxr.serving.service import ARTIFACT, FACTS

    target.mkdir(parents=True, exist_ok=True)
    try:
        got = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target)))
    except (MlflowException, OSError) as error:
        raise CxrError(f"the files of {uri} are gone: {str(error).splitlines()[0]}") from None
    found = sorted(got.glob(f"artifacts/{ARTIFACT}/{FACTS}"))
    if not found:
        raise CxrError(f"the files of {uri} are gone: nothing to serve among them")
    return found[0].parent


def pinned(client: "MlflowClient", uri: str) -> tuple[str, str]:
    """`uri` with its version instead of an alias, and that version; an unknown model raises `CxrError`."""
    from mlflow.exceptions import MlflowException

    if not uri.startswith("models:/"):
        raise CxrError(f"model_uri={uri}: give models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = *uri.removeprefix("models:/").partition("@")[::2], ""
    try:
        if alias:
            version = str(client.get_model_version_by_alias(name, alias).version)
        else:
            name, _, version = name.rpartition("/")
            client.get_model_version(name, version)
    except MlflowException as error:
        line = str(error).splitlines()[0]
        raise CxrError(f"model_uri={uri}: not in the registry ({line}); run `mlflow run . -e main` first") from None
    return f"models:/{name}/{version}", version
