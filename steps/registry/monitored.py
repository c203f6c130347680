"""The last monitorings of a registered version: a tag keeps them."""

import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from steps.registry.registry import alone

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("cxr.monitored")
TAG = "cxr.monitored"  # of a version: its monitorings, the newest last
_KEPT = 10  # monitorings of a version; a tag has room for 5,000 characters


@dataclass(frozen=True)
class Monitored:
    """A monitoring of a version, in short.

    Attributes:
        first: time of the first answer, ISO 8601.
        last: time of the last answer.
        answers: number of answers.
        alarms: number of limits that were passed.
        run_id: MLflow run with the report.
        at: when, ISO 8601.
    """

    first: str
    last: str
    answers: int
    alarms: int
    run_id: str
    at: str


def record(client: "MlflowClient", name: str, version: str, made: Monitored) -> None:
    """Add a monitoring to the tag of its version."""
    with alone(name):
        text = client.get_model_version(name, version).tags.get(TAG, "[]")
        try:
            entries = list(json.loads(text))
        except (ValueError, TypeError):
            log.warning("tag %s of version %s was edited and cannot be read; it is written anew", TAG, version)
            entries = []
        client.set_model_version_tag(name, version, TAG, json.dumps([*entries, asdict(made)][-_KEPT:]))
