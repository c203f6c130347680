"""What a version is: weights, serving settings, the code that ships with it and its packages, and its served files.

A bundle is registered again, as a version of its own, as soon as one of them has changed: otherwise a repair of the
serving code would never be served. What does not ship may change as it likes. `cxr.packaging` does not ship, but it
makes the served files (network, detector, configuration), so these are compared themselves when its code has changed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.common import code
from cxr.common.files import sha256_of, sha256_of_text
from cxr.common.names import ONNXRUNTIME, OPENVINO

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

    from cxr.settings.serving import ServingSettings

# Tags of a version: the digest of its weights and what was chosen for them, the settings that serve it, the digest of
# all that ships beside its files, of the code that made these files, and of the files.
BUNDLE = "cxr.bundle_digest"
SETTINGS, CODE, MADE_BY, FILES = "cxr.serving", "cxr.serving_code", "cxr.packaging_code", "cxr.served_files"


def shipped(settings: "ServingSettings", signature: "ModelSignature") -> dict[str, str]:
    """The tags of a version made now, but for those of its bundle and of its files (see `of_files`)."""
    return {
        SETTINGS: json.dumps(settings.model_dump(), sort_keys=True),
        CODE: serving_code(signature, settings.engine),
        MADE_BY: code.digest("cxr.packaging.package")[:16],
    }


def serving_code(signature: "ModelSignature", engine: str) -> str:
    """Digest of what ships with a version: the code that answers, its requirements, and its signature.

    `engine` is `serving.engine`: where it may be OpenVINO, its pins count, since another release may answer otherwise.
    """
    sources = [f"{file.relative_to(code.PROJECT).as_posix()} {sha256_of(file)}" for file in shipped_sources()]
    columns = json.dumps(signature.to_dict(), sort_keys=True)
    pins = requirements(ONNXRUNTIME if engine == ONNXRUNTIME else OPENVINO)
    return sha256_of_text("\n".join([*sources, *pins, columns]))[:16]


def shipped_sources() -> list[Path]:
    """The files of this project that run in a served model."""
    return code.sources("cxr.serving.mlflow_model")


def requirements(engine: str = ONNXRUNTIME) -> list[str]:
    """What a registered model needs to be served: the pins of `requirements-serve.txt`, without the hashes.

    For the engine `openvino`, those of `requirements-openvino.txt` as well.

    MLflow 3.17 does not recognise `mlflow-skinny` on a line with hashes and adds all of `mlflow`, without one; pip then
    refuses the whole file.
    """
    names = ("requirements-serve.txt", *(["requirements-openvino.txt"] if engine == OPENVINO else []))
    lines = [line for name in names for line in (code.PROJECT / name).read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(line.removesuffix("\\").strip() for line in lines if line[:1].isalnum()))


def of_files(folder: Path) -> str:
    """Digest of the served files, by name and content."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return sha256_of_text("\n".join(f"{file.relative_to(folder).as_posix()} {sha256_of(file)}" for file in files))[:16]


def same(ours: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    """Whether two versions with these tags answer alike, whatever the image: by all that they consist of.

    Where the code that makes the served files has not changed, neither have these; `ours` need not have them then.
    """
    if any(ours[name] != theirs.get(name) for name in (BUNDLE, SETTINGS, CODE)):
        return False
    return ours[MADE_BY] == theirs.get(MADE_BY) or (FILES in ours and ours[FILES] == theirs.get(FILES))


def find(versions: "list[ModelVersion]", tags: Mapping[str, str]) -> "ModelVersion | None":
    """The newest of `versions` that is the same as one with these tags, if there is one."""
    known = sorted(versions, key=lambda version: int(version.version), reverse=True)
    return next((version for version in known if same(tags, version.tags)), None)
