"""The labelled set of a validation: read as `prepare_split` reads it, without images that the model was trained on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy import ndarray

from cxr.datasets import inspection, labelled, overlap, sources
from cxr.datasets.manifest import COLUMNS, EXTRAS, Manifest
from cxr.errors import CxrError
from cxr.evaluation.facts import UnreadableFile
from cxr.evaluation.validation_results import Overlap
from steps.registry import seen
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

TRAINED_ON = ("train", "val")  # splits whose images are the model's own: weights, temperature, thresholds and detector
LISTED = 200  # images left out that the report names; its counts cover all


@dataclass(frozen=True)
class LabelledSet:
    """All readable images of a labelled set, and which of them the model was trained on.

    Attributes:
        manifest: every readable image, as of one split; its classes are those of the labels.
        unreadable: path and reason of the others.
        overlap: what was found in the model's own training.
        trained_on: whether each image stands there, `bool` of shape (n,).
    """

    manifest: Manifest
    unreadable: list[tuple[str, str]]
    overlap: Overlap
    trained_on: ndarray


def read(context: Context, version: "ModelVersion") -> LabelledSet:
    """Read the set that the settings of `data` name, and compare it with the training of a registered version.

    Raises:
        CxrError: there are no labelled images, too many cannot be read, or the model was trained on all of them.
    """
    data, log = context.settings.data, context.log
    source = sources.fetch(data, context.settings.seed)
    log.info("set: %s (%s)", source.description["address"], source.root)
    listing = labelled.listing(source.root, data, every_class=False)
    table, unreadable = inspection.survey(
        source.root,
        listing.images,
        workers=data.workers,
        max_unreadable=data.max_unreadable,
        engine=data.engine,
    )
    table = table.sort_values("path", ignore_index=True).assign(split="test")
    log.info("decoded %d images, %d unreadable", len(table), len(unreadable))
    columns = [*COLUMNS, *(name for name in EXTRAS if name in table)]
    described = {**source.description, **listing.description}
    manifest = Manifest(table[columns], source.root, data.class_names, described, data.finding)
    facts, trained_on = _compare(context, version, manifest, overlap.fingerprints(table))
    if trained_on.all():
        raise CxrError(
            f"all {len(table)} images stand in the training of version {version.version}; give images that it has "
            "not seen"
        )
    return LabelledSet(manifest, unreadable, facts, trained_on)


def _compare(
    context: Context, version: "ModelVersion", manifest: Manifest, prints: pd.DataFrame
) -> tuple[Overlap, ndarray]:
    """Which images stand in the training and validation splits of a version, and what the report says of it."""
    found = np.zeros(len(prints), dtype=bool)
    try:
        own, split = _own(context, version)
    except CxrError as error:
        why_not = f"it could not be checked whether the model was trained on images of this set ({error})"
        context.log.warning("%s", why_not)
        return Overlap(checked=False, why_not=why_not), found
    same_names = True if seen.same_source(split.source, manifest.source) else None
    bits = context.settings.data.near_duplicate_bits
    trained_on = own[own["split"].isin(TRAINED_ON)].reset_index(drop=True)
    matches = overlap.find(prints, trained_on, bits, same_names=same_names)
    found[matches["row"]] = True
    listed = matches.head(LISTED)
    facts = Overlap(
        checked=True,
        compared=len(trained_on),
        reasons={reason: int((matches["reason"] == reason).sum()) for reason in overlap.REASONS},
        listed=[
            UnreadableFile(path=prints["path"].iat[row], reason=f"{reason}: {trained_on['path'].iat[other]}")
            for row, other, reason in zip(listed["row"], listed["other"], listed["reason"], strict=True)
        ],
        same_identifier=int((prints["patient"].isin(set(trained_on["patient"])) & ~found).sum()),
        own_test=len(overlap.find(prints[~found], own[~own["split"].isin(TRAINED_ON)], bits, same_names=False)),
    )
    context.log.info("%d images stand in the training of the model and are left out", found.sum())
    return facts, found


def _own(context: Context, version: "ModelVersion") -> tuple[pd.DataFrame, Manifest]:
    """Fingerprints and manifest of the split that a version was trained on."""
    run_id = version.tags.get("cxr.split_run_id")
    if run_id is None:
        raise CxrError(f"version {version.version} does not name the run of its split")
    return seen.fingerprints(context, run_id)
