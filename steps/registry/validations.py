"""Validations of registered versions on other sets: a tag of the version keeps the last of them."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cxr.evaluation.results import ExternalValidation
from cxr.evaluation.statistics import Estimate
from steps.registry import entries

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "cxr.validated_on"  # of a version: its validations, the newest last
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
        checked: whether it could be found out which images the version knew from its training.
        synthetic: whether the images are phantoms.
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
    checked: bool = True  # by default, for entries that were made before these
    synthetic: bool = False

    @property
    def external(self) -> bool:
        """Whether it says anything of images from elsewhere."""
        return self.checked and not self.synthetic and self.own < self.images

    def __str__(self) -> str:
        scored = "AUC undefined" if self.auc is None else f"AUC {self.auc:.3f} ({self.low:.3f} to {self.high:.3f})"
        own = f", {self.own:,} of them in its own test split" if self.own else ""
        return f"version {self.version} on {self.images:,} images of {self.on}{own}: {scored}; run {self.run_id}"


def record(client: "MlflowClient", name: str, made: Validated) -> None:
    """Add a validation to the tag of its version."""
    entries.append(client, name, made.version, TAG, replace(made, on=made.on[:_NAME_LENGTH]))


def newest(client: "MlflowClient", name: str, version: str = "") -> ExternalValidation | None:
    """The newest external validation of a version, or else of any version of the registered model; None without one.

    One on phantoms, or on images that may be those of the training, is none.
    """
    versions = client.search_model_versions(f"name='{name}'")
    made = [entry for v in versions for entry in entries.read(v, TAG, Validated) if entry.external]
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
