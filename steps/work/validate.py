"""Work of `validate`: a registered model, as it is served, on a labelled set, with scores, a report and its origin."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy import ndarray

from cxr.errors import CxrError
from cxr.evaluation.class_mapping import ClassMapping
from cxr.evaluation.scores import Sample
from cxr.serving import batch
from cxr.serving.columns import TIME
from cxr.serving.service import DISTANCE, ERROR, MEASURED, OK, Service, column_types
from cxr.settings import load
from cxr.settings.classes import as_setting
from steps.registry.model_files import requested_service
from steps.runtime import runs, step_key
from steps.runtime.context import Context
from steps.runtime.settings import DEFAULT_PROFILE, PARAMS
from steps.work import validation_report, validation_set
from steps.work.predict_spark import collect_from_spark
from steps.work.validation_set import LabelledSet

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# Settings that a registered version has fixed.
FROZEN: tuple[str, ...] = ("model", "train", "finetune", "calibration", "serving", "registry.gate", "registry.register")
FROZEN += ("evaluate.views",)
# Settings that choose among images, all of which are scored.
UNUSED = tuple(f"data.{name}" for name in ("subset_size", "val_size", "test_size", "folds", "fold"))


@dataclass(frozen=True)
class Answers:
    """What the served model says of n images.

    Attributes:
        service: the model.
        mapping: its classes and those of the set.
        rows: the images, with the columns of a manifest and those of an answer, in the order of the set.
        sample: true classes and patients.
        probabilities: of the set's classes, of shape (n, D).
        refused: readable images that the model does not accept, with the reason.
    """

    service: Service
    mapping: ClassMapping
    rows: pd.DataFrame
    sample: Sample
    probabilities: ndarray
    refused: list[tuple[str, str]]

    @property
    def answered(self) -> ndarray:
        """Whether the model answers each image instead of referring it, of shape (n,)."""
        return (self.rows["status"] == OK).to_numpy()


def run(context: Context) -> None:
    """Score the registered model that the command line names on the set that it names."""
    _check_settings(context)
    uri, service = requested_service(context)
    _take_classes(context, service)
    name, _, number = uri.removeprefix("models:/").rpartition("/")
    version = context.client.get_model_version(name, number)
    _tag(context, uri, version)
    mapping = ClassMapping.of(service.classes, context.settings.data.class_names)
    if len(mapping.model) == len(mapping.labels) and not mapping.same_names:
        pairs = ", ".join(f"{ours} as {theirs}" for ours, theirs in mapping.pairs().items())
        context.log.warning("the set has other classes than the model, which are taken for each other: %s", pairs)
    images = validation_set.read(context, version)
    answers = score(context, service, mapping, images, uri)
    validation_report.write(context, version, images, answers)


def _check_settings(context: Context) -> None:
    for key in context.overrides:
        if any(key == frozen or key.startswith(f"{frozen}.") for frozen in FROZEN):
            raise CxrError(f"setting {key} cannot be given: validate takes the model exactly as it was registered")
        if key in UNUSED:
            raise CxrError(f"setting {key} cannot be given: validate scores every usable image; try data.filters")
    if "data.path" not in context.overrides and context.settings.data.path == "sample":  # the default
        raise CxrError("data_path is not given; add -P data_path=FOLDER, a folder of labelled X-rays")


def _take_classes(context: Context, service: Service) -> None:
    """Label the set with the classes of the model, unless the user says which classes the set has.

    A settings file of the user's own says so too, since it names every setting.
    """
    if "params" in context.flags or _is_given(context, "data.classes"):
        return
    values = context.settings.to_dict()
    values["data"]["classes"] = as_setting(service.classes, service.finding)
    if not _is_given(context, "data.finding"):
        values["data"]["finding"] = service.finding
    context.settings = load.resolve(values)
    context.put_text(context.settings.to_yaml(), "settings.yaml")


def _is_given(context: Context, key: str) -> bool:
    return load.is_given(key, PARAMS, context.flags.get("profile", DEFAULT_PROFILE), context.overrides)


def _tag(context: Context, uri: str, version: "ModelVersion") -> None:
    """Tags that lead back to the version and to the runs that it came from, and the key of the step."""
    for key, value in runs.lineage(version.tags).items():
        context.tag(key, value)
    context.tag("cxr.model_uri", uri)
    context.tag("cxr.validated_version", f"{version.name}/{version.version}")
    settings = context.settings
    read = [uri, *(version.tags.get(f"cxr.{name}", "") for name in ("bundle_digest", "serving", "serving_code"))]
    read.append(step_key.data_fingerprint(settings.data))
    step_key.tag(context, step_key.components("validate", settings, read))


def score(context: Context, service: Service, mapping: ClassMapping, images: LabelledSet, identity: str) -> Answers:
    """Send every image that the model was not trained on through the served model, a batch at a time."""
    rows = images.manifest.rows[~images.trained_on].reset_index(drop=True)
    output = context.folder / "answers.parquet"
    context.log.info("scoring %d images with %s", len(rows), identity)
    paths = [str(images.manifest.root / path) for path in rows["path"]]
    if context.settings.data.engine == "spark":
        columns = column_types(service.classes, service.finding)
        point = service.check_operating_point("")
        collect_from_spark(identity, columns, paths, output, point, service.limits.max_images)
    else:
        batch.score(service, paths, output, {}, identity)
    answers = pd.read_parquet(output).drop(columns=["path", *(name for name in MEASURED if name != DISTANCE)])
    rows = pd.concat([rows.rename(columns={"label": "truth"}), answers.drop(columns=TIME)], axis=1)
    failed = rows["status"] == ERROR
    refused = list(rows.loc[failed, ["path", "reasons"]].itertuples(index=False, name=None))
    rows = rows[~failed].reset_index(drop=True)
    if rows.empty:
        path, reason = refused[0]
        raise CxrError(f"the model accepts none of {len(refused)} images; the first, {path}: {reason}")
    served = rows[[f"probability_{name}" for name in mapping.model]].to_numpy(np.float64)
    index = {name: i for i, name in enumerate(mapping.labels)}
    labels = rows["truth"].map(index).to_numpy(np.int64)
    patients = rows["patient"].where(rows["patient"] != "", rows["path"]).to_numpy().astype(str)
    sample = Sample.from_labels(labels, patients, mapping.labels, context.settings.seed, images.manifest.finding)
    return Answers(service, mapping, rows, sample, mapping.probabilities(served), refused)
