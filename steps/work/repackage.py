"""Work of `repackage`: a version from the bundle of another, compared with it answer by answer."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray

from cxr.datasets.manifest import Manifest, read_verified
from cxr.errors import CxrError
from cxr.evaluation import bands
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.evaluation.scores import Sample
from cxr.loading.build import open_cache
from cxr.loading.rasters import open_rasters
from cxr.models import device
from cxr.models.bundle import Bundle
from cxr.packaging import carry, package
from cxr.serving import decision
from cxr.serving.decision import Band
from cxr.serving.probabilities import NEGATIVE, finding_probability, softmax
from cxr.serving.service import ARTIFACT, BATCH, CONFIG
from cxr.settings.serving import ServingSettings
from steps.registry import alike, identity, registry, repackaged
from steps.registry.alike import Outcome, Question
from steps.registry.answers import answering, other_packages
from steps.registry.lock import alone
from steps.registry.repackaged import Compared
from steps.runtime import runs
from steps.runtime.context import Context
from steps.work import repackage_sources as sources
from steps.work.repackage_sources import Images

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo

# Images that are asked about at each operating point besides the one that a version has without being asked.
_AT_OTHER_POINTS = 500
_SPLITS = {"val": "validation", "test": "test"}
_TABLE = "differences.csv"


def run(context: Context) -> None:
    """Repackage the version that the command line names, unless nothing about it would change."""
    name, client = context.settings.registry.name, context.client
    number = registry.wanted_version(client, name, context.flags.get("version", "champion"))
    compare = context.boolean("compare", True)
    version = client.get_model_version(name, number)
    repackaged.check(version)
    for key, value in (runs.lineage(version.tags) | {repackaged.SOURCE: number}).items():
        context.tag(key, value)
    context.settings = sources.settings(context, version)
    folder, loaded = sources.bundle_of(context, version)
    classes, finding = loaded.network.classes, loaded.finding
    tags = repackaged.tags(version, context.run_id)
    tags |= identity.shipped(context.settings.serving, registry.signature(classes, finding))
    if (found := _there_already(context, version, tags)) is not None:
        if compare and repackaged.not_compared(found, version):
            _compare_later(context, version, found, loaded, _images(context, version, folder, loaded, needed=False))
        return
    images = _images(context, version, folder, loaded, needed=compare)
    target = context.folder / ARTIFACT
    if images is None:
        _carry_over(context, version, loaded, target)
        tags[identity.MADE_BY] = version.tags.get(identity.MADE_BY, "")  # whose detector and bands it still has
    else:
        _package(context, loaded, images, target)
    tags[identity.FILES] = identity.of_files(target)
    if (found := _there_already(context, version, tags)) is not None:
        if compare and repackaged.not_compared(found, version):
            _compare_later(context, version, found, loaded, images)
        return
    logged, compared = registry.log_model(target, classes, finding), Compared(None, [])
    if images is not None and compare:
        try:
            compared = _compare(context, version, logged.model_uri, loaded, images)
        except CxrError as error:
            context.client.delete_logged_model(logged.model_id)
            raise CxrError(f"{error}; -P compare=false makes a version without comparing") from None
    _register(context, version, logged, tags, compared)


def _there_already(context: Context, source: "ModelVersion", tags: dict[str, str]) -> "ModelVersion | None":
    """Such a version if there is one already, which is then told and tagged."""
    known = [version for version in registry.versions(context.client, source.name) if "cxr.gate" in version.tags]
    found = identity.find(known, tags)
    if found is None:
        return None
    context.tag("cxr.model_version", found.version)
    if int(found.version) == int(source.version):
        what = f"nothing has changed: version {source.version} has today's serving code, packages and settings"
    else:
        what = f"version {found.version} has the weights of version {source.version} and all of today's that serve it"
    context.log.info("%s; no version is made; its gate said %s", what, found.tags["cxr.gate"])
    return found


def _images(context: Context, version: "ModelVersion", folder: Path, loaded: Bundle, *, needed: bool) -> Images | None:
    """The images that the version was made with; None if they are gone and not `needed`."""
    try:
        return sources.images_of(context, version, folder, loaded)
    except CxrError as error:
        if needed:
            raise CxrError(f"{error}; {sources.without_images(context, version)}") from None
        context.log.warning("%s", error)
        return None


def _package(context: Context, loaded: Bundle, images: Images, target: Path) -> None:
    """Write what is served into `target`. Labels of test images are not read."""
    settings, spec = context.settings, loaded.network.spec
    where = device.pick(settings.device, "float32")
    device.prepare(settings.seed, settings.deterministic)
    cache, manifest = open_cache(settings.cache), images.manifest
    datasets = {split: open_rasters(manifest.split(split), spec, cache) for split in _SPLITS}
    datasets["train"] = open_rasters(manifest.split("train"), spec, cache, build=False)
    predictor = Predictor(loaded, str(where.device))
    logits = {split: predict_logits(predictor, datasets[split], settings.evaluate.batch_size) for split in _SPLITS}
    chosen = None
    if (answers := images.out_of_fold) is not None:
        logits["val"] = answers.logits[answers.member == 0]
        chosen = _bands(loaded, manifest.cross_validated().split("val").labels(), answers.logits, settings.serving)
    evaluated = {split: softmax(values / loaded.temperature) for split, values in logits.items()}
    samples = {"val": Sample.of(manifest.split("val"), settings.seed)}
    package.write(target, loaded, datasets, settings.serving, settings.seed, evaluated, samples, chosen)


def _bands(loaded: Bundle, labels: ndarray, logits: ndarray, settings: ServingSettings) -> dict[str, Band]:
    """The bands of referral of an ensemble of folds, chosen on all out-of-fold answers (n, C)."""
    positive = finding_probability(softmax(logits / loaded.temperature))
    return bands.choose(labels != NEGATIVE, positive, decision.operating_points(loaded.operating_points), settings)


def _carry_over(context: Context, version: "ModelVersion", loaded: Bundle, target: Path) -> None:
    """Write what is served into `target`, with what `version` has learnt from images that are gone."""
    _, served = sources.logged_model(context, version)
    try:
        carry.write(target, loaded, served, context.settings.serving, sources.served_with(version))
    except CxrError as error:
        raise CxrError(f"version {version.version} cannot be repackaged without its images: {error}") from None


def _compare(context: Context, version: "ModelVersion", made: str, loaded: Bundle, images: Images) -> Compared:
    """Compare the version with the model at the URI `made`, and log the outcome and the answers that differ."""
    import mlflow

    old, old_served = sources.logged_model(context, version)
    place = context.folder / "made"
    place.mkdir()
    new = Path(mlflow.artifacts.download_artifacts(artifact_uri=made, dst_path=str(place)))
    configs = [json.loads((served / CONFIG).read_text(encoding="utf-8")) for served in (old_served, _served(new))]
    size = min(BATCH, *(config["limits"]["max_images"] for config in configs))
    known = {config["operating_point"] for config in configs}
    points = [name for name in decision.operating_points(loaded.operating_points) if {name} != known]
    context.log.info("comparing the answers of version %s with those of today's code", version.version)
    table = context.folder / _TABLE
    names = f"version {version.version}", "the new version"
    with (
        table.open("w", encoding="utf-8", newline="") as file,
        answering(names[0], old, context.folder / "old.log") as before,
        answering(names[1], new, context.folder / "new.log") as now,
    ):
        outcome = alike.compare(before, now, _questions(images.manifest, points), size, file)
    compared = Compared(outcome, other_packages(old))
    _log_outcome(context, version, compared, outcome, table)
    return compared


def _served(model: Path) -> Path:
    return model / "artifacts" / ARTIFACT


def _questions(manifest: Manifest, points: list[str]) -> Iterator[Question]:
    """All images of validation and test, and some of validation at each of `points`."""
    for split, word in _SPLITS.items():
        part = manifest.split(split)
        yield from (_question(part, i, word) for i in range(len(part)))
    val = manifest.split("val")
    some = np.unique(np.linspace(0, len(val) - 1, min(_AT_OTHER_POINTS, len(val))).astype(int))
    for point in points:
        yield from (_question(val, int(i), _SPLITS["val"], point) for i in some)


def _question(part: Manifest, i: int, word: str, point: str = "") -> Question:
    """The question about an image, whose file is still the one that the version was made with."""
    read_verified(part, i)
    path = str(part.rows["path"].iat[i])
    return Question(str(part.root / path), path, word, point)


def _log_outcome(context: Context, version: "ModelVersion", compared: Compared, outcome: Outcome, table: Path) -> None:
    log = context.log.info if outcome.same else context.log.warning
    log("against version %s: %s", version.version, compared)
    for line in outcome.first:
        log("%s", line)
    facts = {
        "version": int(version.version),
        "same": outcome.same,
        "images": dict(outcome.images),
        "operating_points": outcome.points,
        "answers": outcome.answers,
        "differing": outcome.differing,
        "by_column": dict(outcome.by_column),
        "largest_difference": outcome.largest,
        "first": outcome.first,
        "other_packages": compared.packages,
    }
    context.put_json(facts, "repackage/comparison.json")
    if not outcome.same:
        context.put(table, "repackage")
    counts = {"answers": outcome.answers, "differing": outcome.differing, "largest_difference": outcome.largest}
    context.metrics({f"compared_{name}": value for name, value in counts.items()})


def _register(
    context: Context, source: "ModelVersion", logged: "ModelInfo", tags: dict[str, str], compared: Compared
) -> None:
    """Register the logged model, unless another process has made the same version meanwhile, and give it its alias."""
    name, client = source.name, context.client
    with alone(client, name):
        if _there_already(context, source, tags) is not None:
            client.delete_logged_model(logged.model_id)
            return
        new = registry.add(client, name, logged, tags | compared.tags())
        verdict, _ = registry.settle(client, name, new, partial(repackaged.judge, source, compared))
    _tell(context, source, new, compared, str(verdict))


def _compare_later(
    context: Context, source: "ModelVersion", made: "ModelVersion", loaded: Bundle, images: Images | None
) -> None:
    """Make up for the comparison of `source` with a version that was made without one, and settle its alias by it."""
    if images is None:
        context.log.warning("version %s stays without a comparison", made.version)
        return
    name, client = source.name, context.client
    compared = _compare(context, source, f"models:/{name}/{made.version}", loaded, images)
    with alone(client, name):
        champion = registry.champion_of(client, name)
        if champion is not None and int(champion.version) == int(made.version):  # by hand, which stands
            verdict = made.tags["cxr.gate"]
        else:
            verdict = str(registry.settle(client, name, made, partial(repackaged.judge, source, compared))[0])
        for key, value in compared.tags().items():  # last, so that a version that is not settled is compared again
            client.set_model_version_tag(name, made.version, key, value)
    _tell(context, source, made, compared, verdict)


def _tell(context: Context, source: "ModelVersion", made: "ModelVersion", compared: Compared, verdict: str) -> None:
    """Describe a version, and tag the run with it."""
    day = datetime.fromtimestamp(made.creation_timestamp / 1000, UTC).date()
    text = repackaged.description(source, compared, verdict, day)
    context.client.update_model_version(source.name, str(made.version), description=text)
    context.tag("cxr.model_version", made.version)
    context.tag("cxr.gate", verdict)
    for key, value in compared.tags().items():
        context.tag(key, value)
