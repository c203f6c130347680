"""Comparison of the evaluated model with the champion, on the same validation and test images."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

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
from steps.registry.gate import trained_on_phantoms
from steps.registry.model_files import service_folder
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("cxr.champion")


@dataclass
class ChampionComparer:
    """Compares the evaluated model with registered versions; each version is loaded once.

    Attributes:
        context: the open run.
        manifest: the split that both models answer on; if it has no training images, that of all folds, where the
            answers on validation are out of fold.
        samples: the images of "val" and of "test".
        probabilities: probabilities of the evaluated model for the images of "val" and of "test".
    """

    context: Context
    manifest: Manifest
    samples: dict[str, Sample]
    probabilities: dict[str, ndarray]
    _outcomes: dict[int, ChampionComparison | NoComparison] = field(default_factory=dict)

    def compare(self, champion: "ModelVersion") -> ChampionComparison | NoComparison:
        """The comparison with a version on both splits, or the reason why there is none."""
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
        if champion.tags.get("cxr.manifest_digest") != self.manifest.digest:
            reason = f"{name} was trained on another split and may have seen these test images; no comparison"
            return NoComparison(version=version, why_not=reason)
        try:
            service = Service(self._fetch(champion), threads=cores())
            if service.classes != self.manifest.classes:
                reason = f"{name} has the classes {', '.join(service.classes)}; no comparison"
                return NoComparison(version=version, why_not=reason)
            log.info("comparing with %s on validation and test", name)
            return ChampionComparison(
                version=version, validation=self._on("val", service, champion), test=self._on("test", service, champion)
            )
        except CxrError as error:
            reason = f"{name} cannot be loaded ({error}); move the alias by hand: mlflow run . -e promote"
            return NoComparison(version=version, why_not=reason)

    def _on(self, split: str, service: Service, champion: "ModelVersion") -> Comparison:
        if split == "val" and not len(self.manifest.split("train")):
            logits = self._out_of_fold(champion)
        else:
            cache = open_cache(self.context.settings.cache)
            dataset = open_rasters(self.manifest.split(split), service.spec, cache)
            logits = predict_logits(service.session, dataset, BATCH)
        theirs = softmax(logits / service.temperature)
        return comparison.compare(self.samples[split], self.probabilities[split], theirs)

    def _out_of_fold(self, champion: "ModelVersion") -> ndarray:
        """Logits of the champion's members, each for the images that it was not trained on."""
        if "cxr.ensemble_run_id" not in champion.tags:
            raise CxrError("it does not name the run with its out-of-fold answers")
        file = self.context.fetch(champion.tags["cxr.ensemble_run_id"], f"bundle/{out_of_fold.FILE}")
        return out_of_fold.read(file, self.manifest).logits

    def _fetch(self, champion: "ModelVersion") -> Path:
        target = self.context.folder / "champion" / str(champion.version)
        return service_folder(f"models:/{champion.name}/{champion.version}", target)
