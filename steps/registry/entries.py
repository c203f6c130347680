"""The last results about a registered version, such as its validations: each kind has a tag that keeps them."""

import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from steps.registry.lock import alone

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("cxr.registry")
_KEPT = 10  # entries of a tag
_ROOM = 5000  # characters of a tag, in most databases
Entry = TypeVar("Entry")


def read(version: "ModelVersion", tag: str, kind: type[Entry]) -> list[Entry]:
    """The entries of a tag of a version, of the dataclass `kind`, the newest last; none if somebody has edited it."""
    try:
        return [kind(**entry) for entry in json.loads(version.tags.get(tag, "[]"))]
    except (ValueError, TypeError):
        log.warning("tag %s of version %s was edited and cannot be read; it is ignored", tag, version.version)
        return []


def append(client: "MlflowClient", name: str, number: str, tag: str, made: Any) -> None:
    """Add an entry, a dataclass, to a tag of a version; the oldest goes where there are too many."""
    with alone(client, name):
        entries = [*read(client.get_model_version(name, number), tag, type(made)), made]
        client.set_model_version_tag(name, number, tag, text([asdict(entry) for entry in entries], _KEPT))


def text(entries: list[dict[str, Any]], most: int) -> str:
    """The newest entries as JSON: at most so many, and no more than fit into a tag."""
    kept = entries[-most:]
    while len(found := json.dumps(kept, ensure_ascii=False)) > _ROOM and len(kept) > 1:
        kept = kept[1:]
    return found
