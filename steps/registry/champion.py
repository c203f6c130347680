"""The present champion on the same images: its probabilities, or one line that says why there are none."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy import ndarray

from cxr.common.hardware import cores
from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation import comparison
from cxr.evaluation.scores import Sample
from cxr.packaging import package
from cxr.serving.probabilities import softmax
from cxr.serving.service import Service
from steps.registry.model_files import service_folder
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("cxr.rival")


@dataclass
class ChampionComparison:
    """Compares our probabilities with those of other versions; each version is loaded and asked once.

    `ours` holds our probabilities by split ("val", "test"), `samples` the images they are for.
    """

    context: Context
    manifest: Manifest
    samples: dict[str, Sample]
    ours: dict[str, ndarray]
    _asked: dict[str, "dict[str, Any] | str"] = field(default_factory=dict)

    def on(self, split: str, version: "ModelVersion") -> "dict[str, Any] | str":
        """The comparison with a version on one split, or why there can be none."""
        if version.version not in self._asked:
            self._asked[version.version] = self._compare(version)
        found = self._asked[version.version]
        return found if isinstance(found, str) else found[split]

    def _compare(self, version: "ModelVersion") -> "dict[str, Any] | str":
        name = f"the champion (version {version.version})"
        if version.tags.get("cxr.manifest_digest") != self.manifest.digest:
            return f"{name} was trained on another split: its images may be ours to test on; no comparison"
        try:
            theirs = Service(self._fetch(version), threads=cores())
            if theirs.classes != self.manifest.classes:
                return f"{name} knows the classes {', '.join(theirs.classes)}; no comparison"
            log.info("comparing with %s on validation and test", name)
            found = {}
            for split, sample in self.samples.items():
                logits = package.look(theirs.session, theirs.spec, self.manifest.split(split)).logits
                found[split] = comparison.compare(sample, self.ours[split], softmax(logits / theirs.temperature))
            return found
        except CxrError as error:
            return f"{name} cannot be loaded ({error}); move the alias by hand: mlflow run . -e promote"

    def _fetch(self, version: "ModelVersion") -> Path:
        target = self.context.folder / "champion" / str(version.version)
        return service_folder(f"models:/{version.name}/{version.version}", target)
