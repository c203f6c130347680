"""What a registered version was made of, found again in the store: settings, bundle, images, logged model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.common.remote import Remote
from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation import out_of_fold
from cxr.evaluation.out_of_fold import OutOfFold
from cxr.models import bundle
from cxr.models.bundle import Bundle
from cxr.packaging import carry
from cxr.settings import load
from cxr.settings.schema import Settings
from steps.registry import identity, model_files
from steps.runtime import runs
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_WITH_BUNDLES = ("evaluate", "ensemble", "finetune", "train")
# Settings that repackaging reads; all others are those that the weights were made with.
_OWN = ("serving.", "cache.", "registry.name", "evaluate.batch_size", "seed", "device", "deterministic", "log_dir")


@dataclass(frozen=True)
class Images:
    """The images that a version was made with.

    Attributes:
        manifest: their split; of an ensemble of folds, that of its first member.
        out_of_fold: answers of the members of an ensemble of folds.
    """

    manifest: Manifest
    out_of_fold: OutOfFold | None


def settings(context: Context, version: "ModelVersion") -> Settings:
    """The settings to repackage with: those that serve the version, and what was given on the command line.

    What the version did not have yet is as in the settings file. The seed is that of its evaluation, which drew the
    images that its detector was fitted on.
    """
    for key in context.overrides:
        if not key.startswith(_OWN):
            raise CxrError(f"setting {key} cannot be given: repackage takes the weights and the split as they are")
    values = context.settings.to_dict()
    known, before = values["serving"], served_with(version)
    values["serving"] = known | {name: value for name, value in before.items() if name in known}
    for name in sorted(before.keys() - known.keys()):
        context.log.warning("serving.%s of version %s is no longer a setting; it is dropped", name, version.version)
    for name in sorted(known.keys() - before.keys()):
        new = context.overrides.get(f"serving.{name}", known[name])
        context.log.info("serving.%s is new since version %s: %s", name, version.version, new)
    if "seed" not in context.overrides:
        values["seed"] = _seed(context, version)
    resolved = load.resolve(values, {key: context.overrides[key] for key in context.overrides if "serving." in key})
    context.put_text(resolved.to_yaml(), "settings.yaml")
    return resolved


def served_with(version: "ModelVersion") -> dict[str, Any]:
    """The serving settings of a version, by name; none if it does not say."""
    try:
        found = json.loads(version.tags.get(identity.SETTINGS, "{}"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CxrError(f"the tag {identity.SETTINGS} of version {version.version} was edited and cannot be read")
    return found


def _seed(context: Context, version: "ModelVersion") -> int:
    run_id = version.tags["cxr.evaluate_run_id"]
    try:
        return int(load.read_file(context.fetch(_not_deleted(context, run_id, "evaluation"), "settings.yaml"))["seed"])
    except (CxrError, KeyError, TypeError, ValueError) as error:
        seed = context.settings.seed
        context.log.warning("the seed of run %s cannot be read (%s); taking %d", run_id, error, seed)
        return seed


def bundle_of(context: Context, version: "ModelVersion") -> tuple[Path, Bundle]:
    """The folder of the bundle that a version was made of, and the bundle.

    Raises:
        CxrError: it is damaged, or no longer in the store.
    """
    wanted, looked = version.tags[identity.BUNDLE], []
    for step in _WITH_BUNDLES:
        run_id = version.tags.get(f"cxr.{step}_run_id")
        if run_id is None or not _in_store(context, run_id, f"bundle/{bundle.CONFIG}"):
            continue
        folder = context.fetch(_not_deleted(context, run_id, "bundle"), "bundle")
        if bundle.digest(folder) == wanted:
            return folder, bundle.load(folder)
        looked.append(f"{step} {run_id}")
    where = f"; its runs have others, or it was changed: {', '.join(looked)}" if looked else ""
    raise CxrError(
        f"the bundle of version {version.version} (digest {wanted[:12]}) is no longer in the store{where}; restore the "
        "artifacts of its run, or train again"
    )


def images_of(context: Context, version: "ModelVersion", folder: Path, loaded: Bundle) -> Images:
    """The images that the bundle in `folder` was made with; `CxrError` if some of them are gone."""
    run_id = version.tags["cxr.split_run_id"]
    try:
        manifest = Manifest.load(context.fetch(_not_deleted(context, run_id, "split"), "split"))
    except CxrError as error:
        raise CxrError(f"the split of version {version.version} cannot be read ({error})") from None
    bundle.check_classes(loaded, manifest.classes, manifest.finding)
    if isinstance(manifest.root, Remote):
        raise CxrError(
            f"the images of version {version.version} are at {manifest.root}, and repackage compares only local files"
        )
    missing = [file for file in manifest.files() if not file.is_file()]
    if missing:
        raise CxrError(
            f"{len(missing):,} of the {len(manifest):,} images of version {version.version} are gone, the first: "
            f"{missing[0]}; bring them back"
        )
    answers = out_of_fold.load(folder, loaded, manifest)
    if answers is None:
        return Images(manifest, None)
    return Images(answers.first_fold(manifest.cross_validated()), answers)


def without_images(context: Context, version: "ModelVersion") -> str:
    """What can be done for a version whose images are gone, for errors."""
    try:
        carry.check(logged_model(context, version)[1], context.settings.serving, served_with(version))
    except CxrError as error:
        return f"without them, no version can be made of these weights ({error})"
    return "without them, -P compare=false takes over what was learnt from them and compares nothing"


def logged_model(context: Context, version: "ModelVersion") -> tuple[Path, Path]:
    """The folder of the logged model of a version, and the folder in it that is served."""
    uri = f"models:/{version.name}/{version.version}"
    served = model_files.service_folder(uri, context.folder / "source")
    return served.parents[1], served


def _in_store(context: Context, run_id: str, artifact: str) -> bool:
    is_known = runs.known(context.client, run_id) is not None
    return is_known and runs.has_artifact(context.client, run_id, artifact)


def _not_deleted(context: Context, run_id: str, what: str) -> str:
    """The run, unless it was deleted: its files may be removed at any time."""
    run = runs.known(context.client, run_id)
    if run is None:
        raise CxrError(f"run {run_id} with its {what} is not in the store")
    if run.info.lifecycle_stage == "deleted":
        raise CxrError(f"run {run_id} with its {what} was deleted; `mlflow runs restore --run-id {run_id}` restores it")
    return run_id
