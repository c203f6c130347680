"""Report of a validation: gather the results, and log page, table, figures, metrics and the tag of the version."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd

from cxr.errors import CxrError
from cxr.evaluation import (
    curve_plots,
    external,
    gallery,
    plots,
    referral,
    referral_plots,
    risk_coverage,
    served_gallery,
    subgroups,
    validation_plots,
)
from cxr.evaluation.decision_curve import decision_curve
from cxr.evaluation.facts import SourceFacts, UnreadableFile
from cxr.evaluation.results import Mistakes
from cxr.evaluation.scores import Sample
from cxr.evaluation.statistics import Estimate
from cxr.evaluation.validation_results import (
    Distances,
    FlowStep,
    ImageScores,
    Internal,
    NoInternal,
    SetFacts,
    ValidatedModel,
    ValidationReport,
)
from cxr.report.validation_page import page
from cxr.serving.ood import QUANTILES, OODDetector
from cxr.serving.probabilities import NEGATIVE, finding_probability
from cxr.serving.service import DISTANCE
from steps.registry import validations
from steps.registry.gate import trained_on_phantoms
from steps.registry.model_files import logged_model_id
from steps.registry.validations import Validated
from steps.runtime import process, runs
from steps.runtime.context import Context
from steps.work import dataset_input, validation_probes

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.data.pandas_dataset import PandasDataset
    from mlflow.entities.model_registry import ModelVersion

    from steps.work.validate import Answers
    from steps.work.validation_set import LabelledSet

_LIBRARIES = ("numpy", "pillow", "onnxruntime", "scikit-learn", "scipy", "mlflow")
_TABLE = "predictions.parquet"


def write(context: Context, version: "ModelVersion", images: "LabelledSet", answers: "Answers") -> None:
    """Log `validation/`: predictions.parquet, figures, report.html, report.json and last scores.json."""
    report, figures = _report(context, version, images, answers)
    _log_table(context, images, answers)
    for name, figure in figures.items():
        context.put_figure(figure, f"validation/figures/{name}.png")
    context.put_text(page(report, figures), "validation/report.html")
    context.put_text(report.to_json(), "validation/report.json")
    dataset = dataset_input.log(images.manifest, "validation", _name(report.data.source))
    _log_metrics(context, version, report, dataset)
    scores = {name: score.model_dump() for name, score in report.all.scores.items()}
    context.put_json(scores, "validation/scores.json")
    context.tag("cxr.output_digest", report.data.digest)
    _tell(context, version, report)


def _report(
    context: Context, version: "ModelVersion", images: "LabelledSet", answers: "Answers"
) -> "tuple[ValidationReport, dict[str, Figure]]":
    settings, sample, probabilities = context.settings, answers.sample, answers.probabilities
    service, answered = answers.service, answers.answered
    score = finding_probability(probabilities)
    thresholds = external.Thresholds(service.operating_points, settings.evaluate.prevalences)
    distances = answers.rows[DISTANCE].to_numpy(np.float64)
    rows = answers.rows.drop(columns="label").rename(columns={"truth": "label"})  # the label that was given, not served
    manifest = replace(images.manifest, rows=rows)
    tiles, has_maps = served_gallery.mistakes(
        *(service, answers.mapping, manifest.files(), list(answers.rows["path"]), sample.labels, probabilities),
        settings.evaluate.gallery,
    )
    scored = external.image_scores(sample, probabilities, thresholds)
    some = sample.subset(answered)
    tests, tested = validation_probes.shortcuts(context, answers, manifest)
    tags = context.client.get_run(context.run_id).data.tags
    report = ValidationReport(
        created=datetime.now(UTC),
        resamples=len(sample.weights) - 1,
        seed=settings.seed,
        model=_model(version, answers),
        data=_data(images, answers, scored),
        runs=runs.runs_behind(tags) | {"validate": context.run_id},
        versions={name: version_of(name) for name in _LIBRARIES},
        all=scored,
        answered=external.image_scores(some, probabilities[answered], thresholds) if answered.any() else None,
        referred=_reasons(answers.rows["reasons"]),
        coverage=external.coverage(sample, probabilities, service.operating_points[service.operating_point], answered),
        risk_coverage=risk_coverage.curves(sample, probabilities),
        bands=referral.on_sets(service.operating_points, service.bands, {"this set": (sample, probabilities)}),
        decision_curve=decision_curve(sample.labels != NEGATIVE, score, service.operating_points, sample.weights),
        distances=_distances(distances, service.detector),
        subgroups=subgroups.by_group(manifest, sample, probabilities),
        mistakes=Mistakes(maps=has_maps, images=[tile.mistake for tile in tiles]),
        shortcuts=tests,
        shortcut_images=tested,
        map_sanity=validation_probes.map_sanity(context, version, answers, manifest),
        internal=_internal(context, version, answers),
    )
    title = "this set"
    figures = plots.classification(
        sample.labels, probabilities, sample.classes, title, service.operating_points, finding=sample.finding
    )
    figures["reliability"] = validation_plots.reliability(score, sample, sample.finding)
    figures["risk_coverage"] = curve_plots.risk_coverage(report.risk_coverage, title)
    figures["referral"] = referral_plots.referral(report.bands)
    figures["decision_curve"] = curve_plots.decision_curve(report.decision_curve, title)
    figures["distances"] = validation_plots.distances(distances, report.distances)
    if report.subgroups:
        figures["subgroups"] = plots.subgroups(report.subgroups)
    if tiles:
        figures["gallery"] = gallery.sheet(tiles, has_maps=has_maps)
    if report.map_sanity is not None:
        figures["map_sanity"] = curve_plots.sanity(report.map_sanity)
    if isinstance(report.internal, Internal):
        figures["side_by_side"] = validation_plots.side_by_side(report.internal)
    return report, figures


def _model(version: "ModelVersion", answers: "Answers") -> ValidatedModel:
    service = answers.service
    return ValidatedModel(
        name=version.name,
        version=int(version.version),
        network=_network(version),
        classes=list(service.classes),
        temperature=service.temperature,
        operating_point=service.operating_point,
        operating_points=service.operating_points,
        bundle_digest=version.tags.get("cxr.bundle_digest", ""),
        synthetic=trained_on_phantoms(version.tags),
    )


def _network(version: "ModelVersion") -> str:
    """The architecture, which begins the description of a version."""
    first = (version.description or "").partition("\n")[0]
    return first.removeprefix("# ").partition(":")[0] if first.startswith("# ") else ""


def _data(images: "LabelledSet", answers: "Answers", scored: ImageScores) -> SetFacts:
    manifest, refused = images.manifest, answers.refused
    source, found = SourceFacts.model_validate(manifest.source), len(manifest) + len(images.unreadable)
    left_out = source.left_out.items()
    flow = {f"rows of the table left out: {reason}": count for reason, count in left_out}
    flow |= {
        "images found": found,
        "unreadable, left out": len(images.unreadable),
        "in the training or validation split of the model, left out": int(images.trained_on.sum()),
        "not accepted by the served model, left out": len(refused),
        "scored": scored.images,
        "of these, answered": int(answers.answered.sum()),
        "of these, referred to a person": int((~answers.answered).sum()),
    }
    return SetFacts(
        source=source,
        digest=manifest.digest,
        classes=list(manifest.classes),
        finding=manifest.finding,
        mapping=answers.mapping.pairs(),
        by_class=scored.by_class,
        flow=[FlowStep(what=what, images=count) for what, count in flow.items()],
        unreadable=[UnreadableFile(path=path, reason=reason) for path, reason in images.unreadable],
        refused=[UnreadableFile(path=path, reason=reason) for path, reason in refused],
        overlap=images.overlap,
    )


def _reasons(reasons: pd.Series) -> dict[str, int]:
    """Number of images by reason, as the answers name them, without the numbers behind each."""
    counts: dict[str, int] = {}
    for text in reasons:
        for reason in dict.fromkeys(part.partition(" (")[0] for part in text.split("; ") if part):
            counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _distances(values: np.ndarray, detector: OODDetector) -> Distances:
    validation = detector.validation
    return Distances(
        limit=float(detector.far),
        quantiles=np.quantile(values, np.linspace(0, 1, QUANTILES)).tolist(),
        validation=None if validation is None else validation.tolist(),
        beyond=float(detector.is_far(values).mean()),
    )


def _internal(context: Context, version: "ModelVersion", answers: "Answers") -> Internal | NoInternal:
    """Scores on the version's own test split, from the predictions of the run that evaluated it."""
    run_id, mapping, seed = version.tags.get("cxr.evaluate_run_id"), answers.mapping, context.settings.seed
    if run_id is None:
        return NoInternal(why_not="the version does not name the run that evaluated it")
    try:
        file = context.fetch(run_id, "evaluation/predictions.json")
    except CxrError as error:
        return NoInternal(why_not=str(error))
    rows = json.loads(file.read_text(encoding="utf-8"))
    served = np.array([[row["probabilities"][name] for name in mapping.model] for row in rows])
    labels = np.array([mapping.label(row["truth"]) for row in rows], dtype=np.int64)
    patients = np.array([row["patient"] or row["path"] for row in rows])
    sample = Sample.from_labels(labels, patients, mapping.labels, seed, answers.sample.finding)
    sides = (sample, mapping.probabilities(served)), (answers.sample, answers.probabilities)
    return Internal(
        run_id=run_id,
        images=len(rows),
        patients=len(np.unique(patients)),
        scores=external.side_by_side(*sides, seed),
    )


def _log_table(context: Context, images: "LabelledSet", answers: "Answers") -> None:
    """Log one row for each readable image, left out or not."""
    manifest = images.manifest
    why = pd.Series("", index=manifest.rows.index).mask(images.trained_on, "in the training of the model")
    table = manifest.rows.rename(columns={"label": "truth"}).drop(columns="split").assign(left_out=why)
    told = answers.rows.drop(columns=list(set(answers.rows) & {*table, "split", "heatmap"} - {"path"}))
    table = table.merge(told, "left", "path")
    refused = dict(answers.refused)
    table["left_out"] = table["left_out"].mask(table["path"].isin(refused), table["path"].map(refused))
    file = context.folder / _TABLE
    table.to_parquet(file, index=False)
    context.put(Path(file), "validation")


def _log_metrics(context: Context, version: "ModelVersion", report: ValidationReport, dataset: "PandasDataset") -> None:
    """Log every score of the run and of the logged model behind the version."""
    found: dict[str, Estimate] = {}
    for prefix, part in (("external", report.all), ("external_answered", report.answered)):
        if part is not None:
            finding = {f"calibration_{name}": score for name, score in part.finding}
            scores = {**part.scores, **dict(part.calibration), **finding}
            found |= {f"{prefix}_{name}": score for name, score in scores.items()}
    found |= {f"external_aurc_{name}": curve.area for name, curve in report.risk_coverage.items()}
    found["external_coverage"] = report.coverage.coverage
    found |= {f"external_undecided_{name}": band.on["this set"].share for name, band in report.bands.items()}
    values = {name: score.value for name, score in found.items()}
    values |= {f"{name}_{end}": getattr(score, end) for name, score in found.items() for end in ("low", "high")}
    values |= {"external_images": report.all.images, "external_patients": report.all.patients}
    defined = {name: float(value) for name, value in values.items() if value is not None}
    with process.unbroken():
        mlflow.log_metrics(defined, step=0, run_id=context.run_id, model_id=logged_model_id(version), dataset=dataset)


def _tell(context: Context, version: "ModelVersion", report: ValidationReport) -> None:
    """Tag the version, and log one line."""
    auc = report.all.scores[f"auc_{report.data.finding}"]
    made = Validated(
        on=_name(report.data.source),
        images=report.all.images,
        patients=report.all.patients,
        own=report.data.overlap.own_test,
        auc=auc.value,
        low=auc.low,
        high=auc.high,
        run_id=context.run_id,
        at=report.created.isoformat(timespec="seconds"),
        version=str(version.version),
        checked=report.data.overlap.checked,
        synthetic=report.data.source.synthetic,
    )
    validations.record(context.client, version.name, made)
    context.log.info("%s %s", version.name, made)
    context.log.info("report: validation/report.html of run %s", context.run_id)


def _name(source: SourceFacts) -> str:
    """The set in a few words: its citation, or the last part of its address."""
    return source.citation or Path(source.address).name or source.address
