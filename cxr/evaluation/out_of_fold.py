"""Out-of-fold answers: what each member of an ensemble of folds says to the images that it was not trained on.

Every image outside the test split was a training image of all members but one. Whatever is chosen on validation must
therefore rest on the answers of that one member; the ensemble's own answers there would flatter it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy import ndarray

from cxr.common.files import write_atomic
from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation.facts import TrainingFacts
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.imaging.preprocess import InputSpec
from cxr.loading.rasters import RasterDataset
from cxr.models.bundle import Bundle

FILE = "out_of_fold.csv"  # beside the files of the bundle
_BATCH = 64


@dataclass(frozen=True)
class OutOfFold:
    """Answers to all images outside the test split, in the order of the manifest.

    Attributes:
        member: the member that answers, whose validation image it is, of shape (n,).
        logits: its logits divided by its own temperature, `float64` of shape (n, C).
    """

    member: ndarray
    logits: ndarray

    def first_fold(self, manifest: Manifest) -> Manifest:
        """The manifest that the first member was trained on, from that of all folds (`Manifest.cross_validated`)."""
        split = manifest.rows["split"].copy()
        split[split == "val"] = np.where(self.member == 0, "val", "train")
        return replace(manifest, rows=manifest.rows.assign(split=split))

    def save(self, folder: Path, manifest: Manifest) -> str:
        """Write `out_of_fold.csv` into `folder`; returns its SHA-256. `manifest` is that of all folds."""
        table = pd.DataFrame({"path": manifest.split("val").rows["path"], "member": self.member})
        table[list(manifest.classes)] = self.logits
        content = table.to_csv(index=False, lineterminator="\n").encode()
        write_atomic(folder / FILE, content)
        return hashlib.sha256(content).hexdigest()


def answer(
    members: list[Bundle], folds: list[Manifest], rasters: Callable[[Manifest, InputSpec], RasterDataset], device: str
) -> OutOfFold:
    """Let each member answer the validation images of its fold.

    Args:
        members: bundles, each with its own temperature.
        folds: the manifest that each was trained on; together all folds of one cross-validation.
        rasters: opens the images of a split.
        device: where to compute.
    """
    images = folds[0].cross_validated().split("val").rows["path"]
    row_of = pd.Series(np.arange(len(images)), index=images)
    member, logits = np.empty(len(images), dtype=int), np.empty((len(images), len(folds[0].classes)))
    for number, (bundle, fold) in enumerate(zip(members, folds, strict=True)):
        val = fold.split("val")
        rows = row_of[val.rows["path"]].to_numpy()
        answers = predict_logits(Predictor(bundle, device), rasters(val, bundle.network.spec), _BATCH)
        member[rows], logits[rows] = number, answers / bundle.temperature
    return OutOfFold(member, logits)


def load(folder: Path, bundle: Bundle, manifest: Manifest) -> OutOfFold | None:
    """The answers saved with an ensemble of folds; None for other bundles, and for images of another dataset.

    Args:
        folder: of the bundle.
        bundle: what was loaded from it.
        manifest: of any of its folds.

    Raises:
        CxrError: the file is missing or is not that of the bundle.
    """
    whole, facts = manifest.cross_validated(), TrainingFacts.model_validate(bundle.facts)
    if not bundle.folds or facts.manifest_digest != whole.digest:
        return None
    file = folder / FILE
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != facts.out_of_fold_sha256:
        raise CxrError(f"bundle {folder}: {FILE} is missing or was changed; combine the folds again (-e ensemble)")
    return read(file, whole)


def read(file: Path, manifest: Manifest) -> OutOfFold:
    """Read `out_of_fold.csv`; `manifest` is that of all folds. Answers to other images raise `CxrError`."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)  # numbers as text, so that none is rounded
    classes, paths = list(manifest.classes), list(manifest.split("val").rows["path"])
    if list(table.columns) != ["path", "member", *classes] or list(table["path"]) != paths:
        raise CxrError(f"{file} has answers to other images or classes; combine the folds again (-e ensemble)")
    return OutOfFold(table["member"].to_numpy().astype(int), table[classes].to_numpy().astype(np.float64))
