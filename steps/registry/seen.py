"""Which images of one split a model of another split has seen: in its training, or when it was chosen on validation.

Images of the test split never decide anything, so those of the other split count as unseen.
"""

import logging
from typing import Any

import pandas as pd

from cxr.datasets import overlap
from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from steps.runtime import runs
from steps.runtime.context import Context

log = logging.getLogger("cxr.seen")


def seen(context: Context, split_run_id: str, learned_run_id: str) -> pd.DataFrame:
    """Find the images of a split that stand in the training or validation images of another split.

    Both are given by their prepare_split runs. An image that has the same pixels, is a near duplicate, or is of the
    same patient counts (see `cxr.datasets.overlap`); patients of one source are named alike.

    Returns:
        A table with the `path`, `patient` and `split` of each such image, and the `reason`.

    Raises:
        UnreachableError: the store or a disk could not be read or written.
        CxrError: a split or its fingerprints are missing or damaged.
    """
    (ours, manifest), (theirs, learned_from) = (fingerprints(context, run) for run in (split_run_id, learned_run_id))
    alike = same_source(manifest.source, learned_from.source) or overlap.name_patients_alike(ours, theirs)
    learned = theirs[theirs["split"] != "test"]
    bits = context.settings.data.near_duplicate_bits
    found = overlap.find(ours, learned, bits, same_names=alike)
    images = ours.iloc[found["row"]][["path", "patient", "split"]].reset_index(drop=True)
    return images.assign(reason=found["reason"])


def fingerprints(context: Context, split_run_id: str) -> tuple[pd.DataFrame, Manifest]:
    """The fingerprints of the images of a split, and its manifest; `CxrError` if they are missing or damaged."""
    folder = context.fetch(_with_fingerprints(context, split_run_id), "split")
    manifest, table = Manifest.load(folder), overlap.load(folder)
    if list(table["path"]) != list(manifest.rows["path"]):
        raise CxrError(f"{folder}: its fingerprints are those of other images; run prepare_split again")
    return table, manifest


def same_source(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two sources name patients alike; phantoms do not, which are drawn anew for every seed."""
    return not ours.get("synthetic") and ours.get("address") == theirs.get("address")


def _with_fingerprints(context: Context, split_run_id: str) -> str:
    """This run, or else another one that made the same split; the first splits were kept without fingerprints."""
    split_run = runs.known(context.client, split_run_id)
    if split_run is None:
        raise CxrError(f"its split, run {split_run_id}, is not in the store")
    digest = split_run.data.tags.get("cxr.manifest_digest", "")
    same = f"tags.`cxr.step` = 'prepare_split' and tags.`cxr.manifest_digest` = '{digest}'"
    others = [run.info.run_id for run in runs.search(context.client, context.experiment_id, same, "FINISHED")]
    for run_id in dict.fromkeys([split_run_id, *others]):
        if runs.has_artifact(context.client, run_id, f"split/{overlap.FILE}"):
            return run_id
    raise CxrError(
        f"the split of run {split_run_id} is older than fingerprints are; run prepare_split again on the same "
        "images, with the same settings and seed"
    )
