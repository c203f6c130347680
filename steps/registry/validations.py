"""Validations of registered versions on other sets: a tag of the version keeps the last of them."""

import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cxr.evaluation.results import ExternalValidation
from cxr.evaluation.statistics import Estimate
from steps.registry.registry import alone

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("cxr.validations")
TAG = "cxr.validated_on"  # of a version: its validations, the newest last
_KEPT = 10  # validations of a version; a tag has room for 5,000 characters
_NAME_LENGTH = 80  # characters of the name of a set


@dataclass(frozen=True)
class Validated:
    """A validation of a version, in short.

    Attributes:
        on: the set.
        images: number of images that were scored.
        patients: number of their patients.
        own: how many of them stand in the test split of the version; with all of them, it is no external validation.
        auc: area under the ROC curve of the finding against the negative class; None if the set has only one of them.
        low: lower end of its 95 % interval.
        high: upper end.
        run_id: MLflow run with the report.
        at: when, ISO 8601.
        version: the validated version.
    """

    on: str
    images: int
    patients: int
    own: int
    auc: float | None
    low: float | None
    high: float | None
    run_id: str
    at: str
    version: str

    def __str__(self) -> str:
        scored = "AUC undefined" if self.auc is None else f"AUC {self.auc:.3f} ({self.low:.3f} to {self.high:.3f})"
        own = f", {self.own:,} of them in its own test split" if self.own else ""
        return f"version {self.version} on {self.images:,} images of {self.on}{own}: {scored}; run {self.run_id}"


def record(client: "MlflowClient", name: str, made: Validated) -> None:
    """Add a validation to the tag of its version."""
    with alone(name):
        entries = [*_entries(client.get_model_version(name, made.version)), made]
        kept = [{**asdict(entry), "on": entry.on[:_NAME_LENGTH]} for entry in entries[-_KEPT:]]
        client.set_model_version_tag(name, made.version, TAG, json.dumps(kept, ensure_ascii=False))


def newest(client: "MlflowClient", name: str, version: str = "") -> ExternalValidation | None:
    """The newest external validation of a version, or else of any version of the registered model; None without one."""
    versions = client.search_model_versions(f"name='{name}'")
    made = [entry for v in versions for entry in _entries(v) if entry.own < entry.images]
    if not made:
        return None
    found = max(made, key=lambda entry: (entry.version == version, entry.at))
    notes = [f"{found.own:,} of the images stand in the model's own test split"] if found.own else []
    return ExternalValidation(
        run_id=found.run_id,
        data=f"{found.on} ({'; '.join(notes)})" if notes else found.on,
        images=found.images,
        patients=found.patients,
        auc=Estimate(value=found.auc, low=found.low, high=found.high),
        other_version=int(found.version) if found.version != version else None,
    )


def _entries(version: "ModelVersion") -> list[Validated]:
    try:
        return [Validated(**entry) for entry in json.loads(version.tags.get(TAG, "[]"))]
    except (ValueError, TypeError):
        log.warning("tag %s of version %s was edited and cannot be read; it is ignored", TAG, version.version)
        return []
