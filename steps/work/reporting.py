"""Write the report of an evaluation: gather the facts from the runs behind it, log page, model card and figures."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy import ndarray

from cxr.datasets import characteristics, layouts
from cxr.datasets.manifest import Manifest
from cxr.evaluation import bootstrap, curve_plots, plots, referral_plots, scores
from cxr.evaluation.facts import (
    Characteristic,
    DataFacts,
    InputFacts,
    LeakReport,
    ModelFacts,
    SourceFacts,
    SplitCount,
    UnreadableFile,
)
from cxr.evaluation.probes import MapSanity, Robustness
from cxr.evaluation.results import (
    ChampionComparison,
    EvaluationReport,
    ExternalValidation,
    LabelAudit,
    Mistakes,
    Registration,
    SplitResult,
    Subgroup,
)
from cxr.evaluation.statistics import ChosenBands
from cxr.evaluation.subgroups import too_small
from cxr.report.card import card
from cxr.report.checklist import checklist
from cxr.report.page import page
from steps.runtime.context import Context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from steps.work.evaluate import Subject

_LIBRARIES = ("torch", "torchvision", "torchmetrics", "numpy", "pillow", "scikit-learn", "scipy", "mlflow")
_KERMANY = "CC BY 4.0 (published dataset)"
_DESCRIPTION_LENGTH = 4800  # characters that the registry keeps of a description
_RUN_TAGS = {
    "prepare_split": "cxr.split_run_id",
    "train": "cxr.train_run_id",
    "finetune": "cxr.finetune_run_id",
    "ensemble": "cxr.ensemble_run_id",
}


@dataclass(frozen=True)
class Results:
    """What an evaluation computes; the report adds what is known about model, data and runs."""

    validation: SplitResult | None
    test: SplitResult
    subgroups: list[Subgroup]
    robustness: Robustness | None
    map_sanity: MapSanity | None
    mistakes: Mistakes
    label_audit: LabelAudit | None
    registration: Registration
    bands: ChosenBands | None
    external: ExternalValidation | None = None


def write(context: Context, subject: "Subject", results: Results, figures: "dict[str, Figure]") -> None:
    """Log `evaluation/`: report.html, report.json, model_card.md, figures, and last scores.json."""
    report = _report(context, subject, results)
    figures = {**figures, **_more_figures(report)}
    for name, figure in figures.items():
        context.put_figure(figure, f"evaluation/figures/{name}.png")
    context.put_text(page(report, figures), "evaluation/report.html")
    context.put_text(report.to_json(), "evaluation/report.json")
    text = card(report)
    context.put_text(text, "evaluation/model_card.md")
    if report.registered is not None:
        name, number = report.registered.name, report.registered.version
        context.client.update_model_version(name, str(number), description=text[:_DESCRIPTION_LENGTH])
    values = {name: score.model_dump() for name, score in report.test.scores.items()}
    context.put_json(values, "evaluation/scores.json")
    context.log.info("report: evaluation/report.html of run %s", context.run_id)


def log_predictions(context: Context, subject: "Subject", probabilities: ndarray) -> None:
    """Log the confusion matrix and the prediction for every test image."""
    test = subject.manifest.split("test")
    counts = scores.confusion(test.labels(), probabilities, test.classes).tolist()
    confusion = {"classes": list(test.classes), "rows": "truth", "columns": "predicted", "counts": counts}
    context.put_json(confusion, "evaluation/confusion.json")
    context.put_json(_predictions(test, probabilities), "evaluation/predictions.json")


def _predictions(test: Manifest, probabilities: ndarray) -> list[dict[str, Any]]:
    return [
        {
            "path": image.path,
            "patient": image.patient,
            "truth": image.label,
            "prediction": test.classes[int(row.argmax())],
            "probabilities": dict(zip(test.classes, row.tolist(), strict=True)),
        }
        for image, row in zip(test.rows.itertuples(), probabilities, strict=True)
    ]


def _more_figures(report: EvaluationReport) -> "dict[str, Figure]":
    """Figures that are drawn from the report alone; not every report has all of them."""
    figures = {
        "decision_curve": curve_plots.decision_curve(report.test.decision_curve, "test split"),
        "risk_coverage": curve_plots.risk_coverage(report.test.risk_coverage, "test split"),
    }
    if report.bands is not None:
        figures["referral"] = referral_plots.referral(report.bands.points)
    if report.map_sanity is not None:
        figures["map_sanity"] = curve_plots.sanity(report.map_sanity)
    if report.robustness is not None:
        figures["robustness"] = plots.robustness(report.robustness)
    if report.subgroups:
        figures["subgroups"] = plots.subgroups(report.subgroups)
    if isinstance(report.champion, ChampionComparison) and report.champion.test is not None:
        figures["differences"] = plots.differences(report.champion.test, f"champion {report.champion.version}")
    return figures


def _report(context: Context, subject: "Subject", results: Results) -> EvaluationReport:
    tags = context.client.get_run(context.run_id).data.tags
    registration = results.registration
    report = EvaluationReport(
        created=datetime.now(UTC),
        resamples=bootstrap.RESAMPLES,
        model=_model(subject),
        data=_data(context, subject),
        runs={name: tags[tag] for name, tag in _RUN_TAGS.items() if tag in tags} | {"evaluate": context.run_id},
        settings=context.settings,
        versions={name: version(name) for name in _LIBRARIES},
        validation=results.validation,
        seen=subject.seen,
        out_of_fold=subject.out_of_fold is not None,
        test=results.test,
        bands=results.bands,
        subgroups=results.subgroups,
        small_subgroups=too_small(subject.manifest.split("test")),
        robustness=results.robustness,
        map_sanity=results.map_sanity,
        mistakes=results.mistakes,
        label_audit=results.label_audit,
        registered=registration.registered,
        gate=registration.gate,
        champion=registration.champion,
        served=registration.served,
        external=results.external,
    )
    return report.model_copy(update={"checklist": checklist(report)})


def _model(subject: "Subject") -> ModelFacts:
    network = subject.bundle.network
    return ModelFacts(
        name=network.name,
        classes=list(network.classes),
        finding=subject.bundle.finding,
        input=InputFacts.model_validate(network.spec.to_dict()),
        parameters=sum(p.numel() for p in network.module.parameters()),
        members=network.members,
        views=network.views,
        temperature=subject.bundle.temperature,
        operating_points=subject.bundle.operating_points,
        facts=subject.training,
        digest=subject.digest,
    )


def _data(context: Context, subject: "Subject") -> DataFacts:
    manifest = subject.manifest
    folder = context.fetch(subject.split_run_id, "split")
    leaks = LeakReport.model_validate_json((folder / "leaks.json").read_text(encoding="utf-8"))
    unreadable = pd.read_csv(folder / "unreadable.csv", keep_default_na=False, dtype=str).to_dict("records")
    source = SourceFacts.model_validate(manifest.source)
    decoded = context.client.get_run(subject.split_run_id).data.metrics.get("decoded")
    kept = len(manifest) + len(leaks.dropped)
    return DataFacts(
        source=source,
        licence=_licence(source),
        named_as_published=layouts.named_as_published(manifest.rows["path"]),
        digest=manifest.digest,
        counts=[SplitCount.model_validate(row) for row in manifest.counts().reset_index().to_dict("records")],
        characteristics=[Characteristic.model_validate(row) for row in characteristics.describe(manifest)],
        leaks=leaks,
        unreadable=[UnreadableFile.model_validate(row) for row in unreadable],
        not_taken=int(decoded) - kept if decoded is not None else 0,
    )


def _licence(source: SourceFacts) -> str:
    """The licence of the images, which is known for published datasets and phantoms alone."""
    if source.synthetic:
        return "none needed, generated by this program"
    return _KERMANY if source.citation else "not stated by the source; ask the owner of the images"
