"""The files of a registered model: what is served, without loading it through MLflow."""

from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import CxrError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_FACTS = "service.json"


def service_folder(uri: str, target: Path) -> Path:
    """Download the model at `uri` (`models:/NAME/VERSION`); returns the folder that it serves from."""
    import mlflow
    from mlflow.exceptions import MlflowException

    target.mkdir(parents=True, exist_ok=True)
    try:
        got = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target)))
    except (MlflowException, OSError) as error:
        raise CxrError(f"the files of {uri} are gone: {str(error).splitlines()[0]}") from None
    found = sorted(got.glob(f"artifacts/*/{_FACTS}"))
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
