"""The last monitorings of a registered version: a tag keeps them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.registry import entries

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "cxr.monitored"  # of a version: its monitorings, the newest last


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
    entries.append(client, name, version, TAG, made)
