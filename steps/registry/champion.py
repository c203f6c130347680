"""Comparison of the evaluated model with the champion, on the same validation and test images.

A champion of the same split is compared on all of them. One of another split, as after the data has grown, is compared
on those that stand neither in its training nor in its validation images, by pixels, likeness or patient. The evaluated
model was not trained on them either, since they are of its own split; but its epoch was chosen on the validation images
among them, which favours it a little.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from cxr.common.hardware import cores
from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation import comparison, out_of_fold
from cxr.evaluation.predictor import predict_logits
from cxr.evaluation.results import ChampionComparison, Comparison, NoComparison
from cxr.evaluation.scores import Sample
from cxr.loading.build import open_cache
from cxr.loading.rasters import open_rasters
from cxr.serving.probabilities import softmax
from cxr.serving.service import BATCH, Service
from steps.registry import seen
from steps.registry.gate import trained_on_phantoms
from steps.registry.model_files import current, service_folder
from steps.runtime.context import Context
from steps.runtime.disks import UnreachableError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("cxr.champion")

_BY_HAND = "move the alias by hand: mlflow run . -e promote"


class _IncomparableError(CxrError):
    """There is no comparison with a champion, whenever it is tried, for a reason that lies in the champion."""


@contextmanager
def _because_of(words: str) -> Iterator[None]:
    """Turn a `CxrError` into an `_IncomparableError` of these words, with a place for its own, unless it may pass."""
    try:
        yield
    except UnreachableError:
        raise
    except CxrError as error:
        raise _IncomparableError(words.format(error)) from None


@dataclass
class ChampionComparer:
    """Compares the evaluated model with registered versions; each version is loaded once.

    Attributes:
        context: the open run.
        manifest: the split that both models answer on; if it has no training images, that of all folds, where the
            answers on validation are out of fold.
        split_run_id: the prepare_split run of that split.
        samples: the images of "val" and of "test".
        probabilities: probabilities of the evaluated model for the images of "val" and of "test".
    """

    context: Context
    manifest: Manifest
    split_run_id: str
    samples: dict[str, Sample]
    probabilities: dict[str, ndarray]
    _outcomes: dict[int, ChampionComparison | NoComparison] = field(default_factory=dict)

    def compare(self, champion: "ModelVersion") -> ChampionComparison | NoComparison:
        """The comparison with a version on both splits, or the reason why there is none.

        Raises:
            UnreachableError: the store or a disk could not be read or written.
            CxrError: an image cannot be read, or the network gives no numbers.
        """
        version = int(champion.version)
        if version not in self._outcomes:
            self._outcomes[version] = self._compare(champion, version)
        return self._outcomes[version]

    def _compare(self, champion: "ModelVersion", version: int) -> ChampionComparison | NoComparison:
        name = f"the champion (version {version})"
        if trained_on_phantoms(champion.tags) != bool(self.manifest.source.get("synthetic")):
            trained, here = ("phantoms", "X-rays") if trained_on_phantoms(champion.tags) else ("X-rays", "phantoms")
            reason = f"{name} was trained on {trained}, these images are {here}; no comparison"
            return NoComparison(version=version, why_not=reason)
        cannot_be_loaded = f"{name} cannot be loaded ({{}}); {_BY_HAND}"
        try:
            with _because_of(cannot_be_loaded):
                service = Service(self._fetch(champion), threads=cores())
            self._check_columns(service, name)
            with _because_of(f"{name} was trained on another split, and {{}}; otherwise {_BY_HAND}"):
                rows = self._rows(champion)
            with _because_of(cannot_be_loaded):
                out_of_fold_logits = self._out_of_fold(champion)
        except _IncomparableError as error:
            return NoComparison(version=version, why_not=str(error))
        log.info("comparing with %s on %d validation and %d test images", name, *map(len, rows.values()))
        logits = out_of_fold_logits if out_of_fold_logits is not None else self._logits("val", service)
        validation, test = self._on("val", rows["val"], logits, service, champion), None
        if len(rows["test"]):
            test = self._on("test", rows["test"], self._logits("test", service), service, champion)
        return ChampionComparison(version=version, validation=validation, test=test)

    def _check_columns(self, service: Service, name: str) -> None:
        """Raise `_IncomparableError` if another champion would change the columns of every answer."""
        if service.classes != self.manifest.classes:
            raise _IncomparableError(
                f"{name} has the classes {', '.join(service.classes)}, so that another champion would change the "
                f"columns of every answer; {_BY_HAND}"
            )
        if service.finding != self.manifest.finding:
            raise _IncomparableError(
                f"{name} has the finding {service.finding}, which names columns of every answer; {_BY_HAND}"
            )

    def _is_of_this_split(self, champion: "ModelVersion") -> bool:
        return champion.tags.get("cxr.manifest_digest") == self.manifest.digest

    def _rows(self, champion: "ModelVersion") -> dict[str, ndarray]:
        """The images of "val" and of "test" to compare on: those that the champion has not seen.

        Raises:
            CxrError: too few validation images are left, or it cannot be found out which.
        """
        if self._is_of_this_split(champion):
            return {split: np.arange(len(sample.labels)) for split, sample in self.samples.items()}
        if "cxr.split_run_id" not in champion.tags:
            raise CxrError("does not name the run that made it")
        known = seen.seen(self.context, self.split_run_id, champion.tags["cxr.split_run_id"])["path"]
        unseen = {split: ~self.manifest.split(split).rows["path"].isin(known).to_numpy() for split in self.samples}
        least = self.context.settings.registry.gate.least_images
        number, total = unseen["val"].sum(), len(unseen["val"])
        if number < least:
            raise CxrError(
                f"only {number} of the {total} validation images here are new to it, neither images of its training "
                f"and validation, nor copies, nor of the same patients; expected at least {least} "
                "(registry.gate.least_images)"
            )
        labels = self.samples["val"].labels[unseen["val"]]
        missing = [label for index, label in enumerate(self.manifest.classes) if index not in labels]
        if missing:
            raise CxrError(f"none of the {number} validation images here that are new to it is {missing[0]}")
        return {split: np.flatnonzero(mask) for split, mask in unseen.items()}

    def _logits(self, split: str, service: Service) -> ndarray:
        dataset = open_rasters(self.manifest.split(split), service.spec, open_cache(self.context.settings.cache))
        return predict_logits(service.session, dataset, BATCH)

    def _on(self, split: str, rows: ndarray, logits: ndarray, service: Service, champion: "ModelVersion") -> Comparison:
        theirs, sample = softmax(logits / service.temperature), self.samples[split]
        outcome = comparison.compare(sample.subset(rows), self.probabilities[split][rows], theirs[rows])
        left_out = None if self._is_of_this_split(champion) else len(sample.labels) - len(rows)
        return outcome.model_copy(update={"left_out": left_out})

    def _out_of_fold(self, champion: "ModelVersion") -> ndarray | None:
        """Logits of the champion's members, each for the images that it was not trained on; None for any other."""
        if not self._is_of_this_split(champion) or len(self.manifest.split("train")):
            return None
        if "cxr.ensemble_run_id" not in champion.tags:
            raise CxrError("it does not name the run with its out-of-fold answers")
        file = self.context.fetch(champion.tags["cxr.ensemble_run_id"], f"bundle/{out_of_fold.FILE}")
        return out_of_fold.read(file, self.manifest).logits

    def _fetch(self, champion: "ModelVersion") -> Path:
        target = self.context.folder / "champion" / str(champion.version)
        uri = f"models:/{champion.name}/{champion.version}"
        return current(uri, service_folder(uri, target))
