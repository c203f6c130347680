"""The work of `evaluate`: predict validation and test, score them, register the bundle, write the report."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from numpy import ndarray

from cxr.common import storage
from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation import (
    assess,
    cam,
    curve_plots,
    gallery,
    label_audit,
    out_of_fold,
    plots,
    subgroups,
)
from cxr.evaluation.facts import SeenImages, TrainingFacts
from cxr.evaluation.out_of_fold import OutOfFold
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.evaluation.results import LabelAudit, Mistakes, Registration, SplitResult
from cxr.evaluation.scores import Sample
from cxr.evaluation.statistics import Scores
from cxr.evaluation.tuning import set_views
from cxr.loading.build import open_cache
from cxr.loading.rasters import RasterDataset, open_rasters
from cxr.models import bundle, device
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import softmax
from cxr.settings import instantiate
from steps.registry import registry, validations
from steps.registry.champion import ChampionComparer
from steps.runtime import step_key
from steps.runtime.context import Context
from steps.work import probing, provenance, referring, reporting

SPLITS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a bundle, its network on a device, and the images to evaluate it on.

    Of an ensemble of folds, `manifest` is that of all folds, where all images outside the test split are validation
    images with an answer in `out_of_fold`; `datasets` are those of the first member, for the files to serve. A bundle
    of another split, which is not registered, may have `seen` some of the images.
    """

    folder: Path
    bundle: Bundle
    predictor: Predictor
    manifest: Manifest
    datasets: dict[str, RasterDataset]
    split_run_id: str
    digest: str
    out_of_fold: OutOfFold | None
    seen: SeenImages | None

    @property
    def training(self) -> TrainingFacts:
        """Where the weights come from."""
        return TrainingFacts.model_validate(self.bundle.facts)


def run(context: Context) -> None:
    """Score the bundle that the command line names, register it, and write the report."""
    subject = _subject(context)
    settings = context.settings.evaluate
    logits, samples, results = {}, {}, {}
    for split, word in SPLITS.items():
        images = subject.manifest.split(split)
        if not len(images):
            context.log.warning("the split has no %s images: scores of the test images alone", word)
            continue
        if split == "val" and subject.out_of_fold is not None:
            word = "validation (out of fold)"
        context.log.info("evaluating %s on %d %s images", subject.bundle.network.name, len(images), word)
        logits[split] = _logits(subject, split, settings.batch_size)
        samples[split] = Sample.of(images, context.settings.seed)
        results[split] = assess.assess(samples[split], logits[split], subject.bundle, settings.prevalences)
    probabilities = {split: softmax(values / subject.bundle.temperature) for split, values in logits.items()}
    _log_scores(context, subject, results, probabilities["test"])
    chosen = referring.choose(context, subject, samples, probabilities)
    figures = _figures(subject, logits["test"], samples["test"])
    mistakes = _mistakes(context, subject, probabilities["test"], figures)
    comparer = ChampionComparer(context, subject.manifest, subject.split_run_id, samples, probabilities)
    by_group = subgroups.by_group(subject.manifest.split("test"), samples["test"], probabilities["test"])
    robust = probing.robust(context, subject) if settings.robustness else None
    maps_checked = probing.map_sanity(context, subject, samples["test"])
    # A version names this run as its evaluation, and is compared by these answers, even if the run goes no further.
    reporting.log_predictions(context, subject, probabilities["test"])
    registration = Registration()
    if context.settings.registry.register_model and subject.seen is None:
        tags = provenance.version_tags(context, subject.training, subject.manifest, subject.digest)
        evaluated, evaluated_samples = _of_first_member(subject, probabilities, samples)
        registration = registry.register(
            *(context, subject.bundle, subject.datasets, tags, results["val"].scores, comparer),
            evaluated=evaluated,
            samples=evaluated_samples,
            bands={name: (band.low, band.high) for name, band in chosen.points.items()} if chosen is not None else None,
        )
    audit = None
    if subject.out_of_fold is not None:
        audit = _label_audit(context, subject, samples["val"], probabilities["val"], figures)
    version = str(registration.registered.version) if registration.registered is not None else ""
    parts = reporting.Results(
        *(results.get("val"), results["test"], by_group, robust, maps_checked, mistakes, audit, registration, chosen),
        external=validations.newest(context.client, context.settings.registry.name, version),
    )
    reporting.write(context, subject, parts, figures)
    context.tag("cxr.output_digest", subject.digest)
    _copy(context)


def _subject(context: Context) -> Subject:
    folder, split_run_id = _inputs(context)
    loaded = bundle.load(folder)
    manifest = Manifest.load(context.fetch(split_run_id, "split"))
    bundle.check_classes(loaded, manifest.classes, manifest.finding)
    digest = bundle.digest(folder)
    step_key.tag(context, step_key.components("evaluate", context.settings, [digest, manifest.digest]))
    answers, own = out_of_fold.load(folder, loaded, manifest), manifest
    if answers is not None:
        manifest = manifest.cross_validated()
        own = answers.first_fold(manifest)
    seen = provenance.seen_of(context, TrainingFacts.model_validate(loaded.facts), manifest, split_run_id)
    _check_parts(manifest, registered=context.settings.registry.register_model and seen is None)
    where = device.pick(context.settings.device, "float32")
    device.prepare(context.settings.seed, context.settings.deterministic)
    cache, spec = open_cache(context.settings.cache), loaded.network.spec
    datasets = {split: open_rasters(own.split(split), spec, cache) for split in SPLITS}
    # A sample of the training images is read; decoding all of them for it would not pay.
    datasets["train"] = open_rasters(own.split("train"), spec, cache, build=False)
    if context.settings.evaluate.views != loaded.network.views:
        views, calibration = context.settings.evaluate.views, context.settings.calibration
        if seen is not None:
            raise CxrError(
                f"evaluate.views={views}: temperature and thresholds would be chosen anew, on images of another split "
                f"than the bundle's own; set evaluate.views={loaded.network.views}, as the bundle has it"
            )
        if answers is not None:
            raise CxrError(
                f"evaluate.views={views}: the out-of-fold answers that calibrate an ensemble of folds are of one view; "
                "set evaluate.views=1"
            )
        if not len(datasets["val"]):
            raise CxrError(
                f"evaluate.views={views}: temperature and thresholds would be chosen anew, but the split has no "
                f"validation images; set evaluate.views={loaded.network.views}, as the bundle has it"
            )
        set_views(loaded, views, datasets["val"], calibration, str(where.device))
        folder = context.folder / "bundle"
        digest = bundle.save(loaded, folder)
        context.put(folder, "bundle")
    predictor = Predictor(loaded, str(where.device))
    return Subject(folder, loaded, predictor, manifest, datasets, split_run_id, digest, answers, seen)


def _logits(subject: Subject, split: str, batch_size: int) -> ndarray:
    """Logits (n, C) for the images of a split; out of fold for validation images that members were trained on."""
    if split == "val" and subject.out_of_fold is not None:
        return subject.out_of_fold.logits
    return predict_logits(subject.predictor, subject.datasets[split], batch_size)


def _of_first_member(
    subject: Subject, probabilities: dict[str, ndarray], samples: dict[str, Sample]
) -> tuple[dict[str, ndarray], dict[str, Sample]]:
    """Probabilities and samples of the images of `subject.datasets`."""
    if subject.out_of_fold is None:
        return probabilities, samples
    own = subject.out_of_fold.member == 0
    return {**probabilities, "val": probabilities["val"][own]}, {**samples, "val": samples["val"].subset(own)}


def _check_parts(manifest: Manifest, *, registered: bool) -> None:
    """Refuse a split without test images, and without validation images if the gate is to judge on these."""
    if not len(manifest.split("test")):
        raise CxrError("the split has no test images; run prepare_split with data.test_size above 0")
    if registered and not len(manifest.split("val")):
        raise CxrError(
            "the split has no validation images, on which the registry gate judges; run prepare_split with "
            "data.val_size above 0, or give -P registry.register=false to score without registering"
        )


def _inputs(context: Context) -> tuple[Path, str]:
    """The folder of the bundle, and the ID of the run with the split to evaluate it on."""
    if "bundle" in context.flags and "run_id" in context.flags:
        raise CxrError("run_id and bundle are both given; give one of them")
    if "bundle" in context.flags:
        return Path(context.flags["bundle"]).expanduser(), context.parent("split_run_id").info.run_id
    parent = context.parent("run_id")
    if "split_run_id" in context.flags:
        split_run_id = context.parent("split_run_id").info.run_id
    else:
        split_run_id = parent.data.tags["cxr.split_run_id"]
    return context.fetch(parent.info.run_id, "bundle"), split_run_id


def _log_scores(context: Context, subject: Subject, results: dict[str, SplitResult], probabilities: ndarray) -> None:
    """Log every test score with its interval and the configured metric as metrics, and one line of text."""
    test, training = results["test"], subject.training
    values = {f"test_{name}": score.value for name, score in test.scores.items()}
    values |= {f"test_{name}_low": score.low for name, score in test.scores.items()}
    values |= {f"test_{name}_high": score.high for name, score in test.scores.items()}
    if "val" in results:
        values |= {f"val_{name}": score.value for name, score in results["val"].scores.items()}
    for name, found in {**dict(test.calibration.after), **_more_scores(test)}.items():
        values |= {f"test_{name}": found.value, f"test_{name}_low": found.low, f"test_{name}_high": found.high}
    metric = instantiate.metric(context.settings.evaluate.metric, len(subject.manifest.classes))
    metric.update(torch.from_numpy(probabilities), torch.from_numpy(subject.manifest.split("test").labels()))
    values["test_metric"] = float(metric.compute())
    values |= {"val_metric": training.val_metric, "val_loss": training.val_loss}
    context.metrics({name: value for name, value in values.items() if value is not None})
    f1 = test.scores["macro_f1"]
    context.log.info(
        "test: macro-F1 %.4f (%.4f to %.4f), loss %.4f, accuracy %.4f on %d images of %d patients",
        *(f1.value, f1.low, f1.high, test.scores["loss"].value, test.scores["accuracy"].value),
        *(test.images, test.patients),
    )


def _more_scores(test: SplitResult) -> Scores:
    """Calibration of the finding, and areas under the curves of risk by coverage, by the names of their metrics."""
    areas = {f"aurc_{name}": curve.area for name, curve in test.risk_coverage.items()}
    return {f"calibration_{name}": found for name, found in test.calibration.finding} | areas


def _figures(subject: Subject, logits: ndarray, sample: Sample) -> dict[str, Figure]:
    """Figures of the scores on the test split, by name."""
    loaded, title = subject.bundle, "test split"
    probabilities = softmax(logits / loaded.temperature)
    figures = plots.classification(
        *(sample.labels, probabilities, sample.classes, title, loaded.operating_points), finding=sample.finding
    )
    figures["reliability"] = curve_plots.reliability(logits, sample, loaded.temperature, title)
    return figures


def _mistakes(context: Context, subject: Subject, probabilities: ndarray, figures: dict[str, Figure]) -> Mistakes:
    """The most confident mistakes on the test split, whose gallery is added to `figures`."""
    maps = cam.ClassActivationMap.of(subject.predictor, subject.bundle.network)
    test, most = subject.manifest.split("test"), context.settings.evaluate.gallery
    tiles = gallery.mistakes(test, subject.datasets["test"], probabilities, maps, most)
    mistakes = Mistakes(maps=maps is not None, images=[tile.mistake for tile in tiles])
    if most:
        figures["gallery"] = gallery.sheet(tiles, has_maps=mistakes.maps)
    return mistakes


def _label_audit(
    context: Context, subject: Subject, sample: Sample, probabilities: ndarray, figures: dict[str, Figure]
) -> LabelAudit:
    """Log the table of doubtful labels outside the test split, and add their gallery to `figures`."""
    images, most = subject.manifest.split("val"), context.settings.evaluate.gallery
    rows = label_audit.doubtful(sample.labels, probabilities)
    context.put_text(label_audit.table(images, probabilities, rows).to_csv(index=False), "evaluation/label_audit.csv")
    rasters = open_rasters(images, subject.bundle.network.spec, open_cache(context.settings.cache), build=False)
    tiles = gallery.tiles(images, rasters, probabilities, None, rows[:most])
    context.log.info("label audit: %d of %d labels are doubtful", len(rows), len(images))
    if tiles:
        figures["label_audit"] = gallery.sheet(tiles, has_maps=False, what="most doubtful labels")
    return label_audit.audit(images, sample, probabilities, rows, most)


def _copy(context: Context) -> None:
    """Copy `evaluation/` to the folder `out`, if given."""
    if "out" not in context.flags:
        return
    out = storage.local(context.flags["out"], "out")
    try:
        shutil.copytree(context.fetch(context.run_id, "evaluation"), out, dirs_exist_ok=True)
    except OSError as error:
        raise CxrError(f"out={out}: {error.strerror or error}; give a folder that can be written to") from None
    context.log.info("copied to %s", out)
