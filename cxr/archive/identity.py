"""Who made a result, and unique identifiers that a second run finds again.

Every identifier is a digest of the source image's own identifier, the model and the operating point. The same model on
the same image gives the same identifiers, so an archive does not fill with copies; a new version gives new ones.
"""

from dataclasses import dataclass

from pydicom.uid import generate_uid

from cxr.serving.service import Service

MAKER = "cxr-pipeline"
RESEARCH = "For research use only. Not for diagnosis."
# Part of every identifier. Raise it when the content of a report or the look of a heatmap changes: an archive must
# never hold two different objects under one identifier.
FORMAT = "1"


@dataclass(frozen=True)
class Model:
    """The model that answers, as its results name it.

    Attributes:
        name: of the registered model.
        version: in the registry.
        digest: SHA-256 of its `service.json`, which holds those of its weights, in hex. Two stores may give one name
            and version to different models.
        classes: names of the classes, the negative one first.
        finding: what all classes but the first have in common.
        thresholds: probability of the finding from which an image is called positive, 0..1, by operating point.
        bands: probabilities between which the model refers, 0..1, by operating point.
        resize_mode: how an image becomes the square that the network sees (see `InputSpec`).
    """

    name: str
    version: str
    digest: str
    classes: tuple[str, ...]
    finding: str
    thresholds: dict[str, float]
    bands: dict[str, tuple[float, float]]
    resize_mode: str

    @classmethod
    def of(cls, service: Service, name: str) -> "Model":
        """The model that `service` serves, registered as `name`."""
        return cls(
            name=name,
            version=service.version,
            digest=service.digest,
            classes=service.classes,
            finding=service.finding,
            thresholds=dict(service.operating_points),
            bands=dict(service.bands),
            resize_mode=service.spec.resize_mode,
        )

    @property
    def device_uid(self) -> str:
        """Identifier of the model as the device that observes."""
        return _uid("device", self.digest, self.version)


@dataclass(frozen=True)
class ResultUIDs:
    """Identifiers of the results for one image: its report, its heatmap, and the series that each of them is in."""

    study: str
    report: str
    report_series: str
    heatmap: str
    heatmap_series: str
    tracking: str

    @classmethod
    def of(cls, study: str, instance: str, model: Model, point: str) -> "ResultUIDs":
        """Of the image `instance` of `study`, answered at the operating point `point`.

        All reports of a model and operating point on a study share a series, and so do all heatmaps.
        """
        maker = (model.digest, model.name, model.version, point)
        return cls(
            study=study,
            report=_uid("report", study, instance, *maker),
            report_series=_uid("series of reports", study, *maker),
            heatmap=_uid("heatmap", study, instance, *maker),
            heatmap_series=_uid("series of heatmaps", study, *maker),
            tracking=_uid("tracking", study, instance, *maker),
        )


def _uid(*words: str) -> str:
    return str(generate_uid(entropy_srcs=["\0".join((MAKER, FORMAT, *words))]))
