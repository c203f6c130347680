"""The reference of a version: how it answers its validation images, beside its other files as `reference.json`.

Packaging writes it (`cxr.packaging.reference`), and later answers are held against it. It is of bounded size: of each
column, 1,001 quantiles at most.
"""

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
from numpy import ndarray
from pydantic import Field, ValidationError

from cxr.common.files import check_digest
from cxr.errors import CxrError
from cxr.evaluation.facts import ReportModel
from cxr.monitoring import drift
from cxr.serving.reasons import KINDS
from cxr.serving.service import CONFIG, MEASURED

FILE = "reference.json"
MOST = 1001  # quantiles of a column
_DIGITS = 7  # significant, as many as `float32` has


def rounded(values: ndarray) -> ndarray:
    """Values as the reference keeps them. Answers are rounded alike: 0.99999998 would be below a share kept as 1."""
    return np.array([float(f"{value:.{_DIGITS}g}") for value in values])


class Column(ReportModel):
    """Distribution of one number over the validation images."""

    quantiles: list[float] = Field(
        min_length=1, description="At evenly spaced shares from 0 to 1; of up to 1,001 images, their sorted values."
    )
    design_effect: float = Field(
        ge=1, description="How much more its shares vary than those of independent images; 1 if no patient has several."
    )

    @classmethod
    def of(cls, values: ndarray, patients: ndarray) -> "Column":
        """The distribution of `values` (n,) of images of `patients` (n,)."""
        values = rounded(values)
        ordered = np.sort(values)
        bins = np.searchsorted(drift.edges(ordered, len(ordered)), values, "left")
        effect = drift.design_effect(bins, patients)
        if len(ordered) > MOST:
            ordered = np.quantile(ordered, np.linspace(0, 1, MOST), method="nearest")
        return cls(quantiles=ordered.tolist(), design_effect=_rounded(effect))

    def bins(self, images: int) -> tuple[ndarray, ndarray]:
        """Upper ends of the bins (see `drift.edges`), and the number of the reference's `images` in each bin."""
        values = np.array(self.quantiles)
        ends = drift.edges(values, images)
        return ends, drift.counts(values, ends) * images / len(values)


class Referred(ReportModel):
    """Validation images that the version refers at one operating point."""

    images: int = Field(description="Number of images that it refers, for any reason.")
    reasons: dict[str, int] = Field(description="Number of images by kind of reason; an image can have several.")


class Reference(ReportModel):
    """How a version answers its validation images: the content of `reference.json`."""

    format: Literal[1] = 1
    classes: list[str] = Field(min_length=2, description="Class names, the negative one first.")
    finding: str = Field(description="What all classes but the first have in common.")
    operating_points: dict[str, float] = Field(description="Threshold on the probability of the finding by name.")
    images: int = Field(ge=1, description="Number of validation images.")
    patients: int = Field(ge=1, description="Number of their patients.")
    out_of_fold: bool = Field(
        description="Whether each image is answered by the one member of an ensemble of folds that was not trained on "
        "it. The version answers with all members, which are surer or less sure than one."
    )
    columns: dict[str, Column] = Field(description="By name: probabilities, distance, brightness, width and height.")
    confusion: list[list[int]] = Field(description="Number of images by true class (rows) and likeliest class.")
    label_effect: float = Field(ge=1, description="Design effect of the shares of the likeliest class.")
    referred: dict[str, Referred] = Field(description="By operating point.")
    referral_effect: float = Field(ge=1, description="Design effect of the share of referred images.")

    @property
    def counts(self) -> ndarray:
        """Number of images by true class (rows) and likeliest class (columns), of shape (C, C)."""
        return np.array(self.confusion)

    def to_json(self) -> str:
        """The text of `reference.json`."""
        return self.model_dump_json() + "\n"


def _rounded(effect: float) -> float:
    """A design effect rounded up to twentieths, so that columns share simulations of chance."""
    return math.ceil(round(effect * 20, 6)) / 20


def column_names(classes: tuple[str, ...], finding: str) -> list[str]:
    """The numbers of an answer that are watched."""
    names = [f"probability_{name}" for name in classes]
    return [*names, *([] if finding in classes else [f"probability_{finding}"]), *MEASURED]


def of_answers(
    *,
    classes: tuple[str, ...],
    finding: str,
    operating_points: dict[str, float],
    labels: ndarray,
    patients: ndarray,
    columns: dict[str, ndarray],
    reasons: dict[str, dict[str, ndarray]],
    out_of_fold: bool = False,
) -> Reference:
    """The reference of a version from its answers to n validation images.

    Args:
        classes: class names, the negative one first.
        finding: what all others have in common.
        operating_points: threshold on the probability of the finding by name.
        labels: true classes as indices, of shape (n,).
        patients: names of the patients, of shape (n,).
        columns: those of `column_names`, each of shape (n,).
        reasons: for each operating point, whether each image is referred for each kind of reason, `bool` (n,).
        out_of_fold: whether single members of an ensemble of folds have answered.
    """
    predicted = np.stack([columns[f"probability_{name}"] for name in classes], 1).argmax(1)
    confusion = np.zeros((len(classes), len(classes)), int)
    np.add.at(confusion, (labels, predicted), 1)
    masks = {point: np.logical_or.reduce([of_kind[kind] for kind in KINDS]) for point, of_kind in reasons.items()}
    return Reference(
        classes=list(classes),
        finding=finding,
        operating_points=operating_points,
        images=len(labels),
        patients=len(np.unique(patients)),
        out_of_fold=out_of_fold,
        columns={name: Column.of(columns[name], patients) for name in column_names(classes, finding)},
        confusion=confusion.tolist(),
        label_effect=_rounded(drift.design_effect(predicted, patients)),
        referred={
            point: Referred(images=int(masks[point].sum()), reasons={kind: int(of_kind[kind].sum()) for kind in KINDS})
            for point, of_kind in reasons.items()
        },
        referral_effect=_rounded(max(drift.design_effect(mask.astype(int), patients) for mask in masks.values())),
    )


def load(folder: Path, version: str) -> Reference:
    """Read the reference from the folder of a served model; `version` names it in errors.

    Raises:
        CxrError: the version was made without a reference, or it is not the one that was made with it.
    """
    try:
        digests = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["sha256"]
        if FILE not in digests:
            raise CxrError(
                f"{version} has no reference to hold answers against; it was made before versions kept one. Make it "
                "anew from its bundle: mlflow run . -e evaluate, or -e repackage"
            )
        remedy = "register the bundle again"
        check_digest(folder / FILE, digests[FILE], owner=version, config=CONFIG, remedy=remedy)
        return Reference.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise CxrError(f"{version}: {FILE} cannot be read ({error}); register the bundle again") from None
