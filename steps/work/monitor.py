"""Work of `monitor`: answers of a registered version in use against its reference, with a report and alarms."""

from datetime import UTC, datetime
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

import numpy as np
from mlflow.entities import Metric

from cxr.common import storage
from cxr.errors import CxrError
from cxr.monitoring import label_shift, plots, table, truths
from cxr.monitoring import reference as references
from cxr.monitoring.judge import UNITS, Judge, alarms
from cxr.monitoring.reference import Reference
from cxr.monitoring.results import InputRows, MonitoredModel, MonitoringReport, Part, Window
from cxr.monitoring.table import Answers
from cxr.monitoring.truths import Truths
from cxr.report.monitoring_page import page
from cxr.serving.columns import TIME
from cxr.serving.service import ERROR
from steps.registry import monitored
from steps.registry.gate import trained_on_phantoms
from steps.registry.model_files import requested, service_folder
from steps.registry.monitored import Monitored
from steps.runtime import runs
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_LIBRARIES = ("numpy", "pandas", "pyarrow", "scipy", "mlflow")
_METRICS = 1000  # of one call; MLflow accepts no more


def run(context: Context) -> None:
    """Judge the answers that the command line names, log report and metrics, and fail where limits are passed."""
    if "input" not in context.flags:
        raise CxrError("input is not given; add -P input=preds.parquet, as predict wrote it, or the log of a service")
    unit = context.flags.get("window", "day")
    if unit not in UNITS:
        raise CxrError(f"window: expected one of {', '.join(UNITS)}, got {unit!r}")
    version, reference = _version(context)
    answers, truth = _answers(context, version, reference)
    judge = Judge(reference, context.settings.monitor, context.settings.seed, truth)
    context.log.info(
        "%d answers of %s version %s, against %d validation images",
        *(len(answers.rows), version.name, version.version, reference.images),
    )
    whole, windows = judge.whole(answers.rows), judge.windows(answers.rows, unit)
    parts = [whole, *(window.part for window in windows if window.part is not None)]
    report = MonitoringReport(
        created=datetime.now(UTC),
        seed=context.settings.seed,
        model=_model(version, reference),
        input=_input(context, answers, truth),
        settings=context.settings.monitor,
        unit="week" if unit == "week" else "day",
        comparisons=sum(judge.comparisons(part.images) for part in parts),
        whole=whole,
        windows=windows,
        alarms=_alarms(whole, windows, unit),
        runs=runs.runs_behind(version.tags) | {"monitor": context.run_id},
        versions={name: version_of(name) for name in _LIBRARIES},
    )
    _log(context, version, report, reference, answers)
    for name, too_few in (whole.scores.not_judged if whole.scores is not None else {}).items():
        context.log.warning("%s is not held against its limit: %s", name, too_few)
    if report.alarms:
        more = f", and {len(report.alarms) - 1} more" if len(report.alarms) > 1 else ""
        raise CxrError(
            f"{version.name} version {version.version}: monitor.limits are passed: {report.alarms[0]}{more}; see "
            f"monitoring/report.html of run {context.run_id}"
        )
    context.log.info("no limit is passed")


def _version(context: Context) -> "tuple[ModelVersion, Reference]":
    uri, number = requested(context)
    name = uri.removeprefix("models:/").rpartition("/")[0]
    version = context.client.get_model_version(name, number)
    context.tag("cxr.model_version", number)
    context.tag("cxr.model_uri", uri)
    for key, value in runs.lineage(version.tags).items():
        context.tag(key, value)
    reference = references.load(service_folder(uri, context.folder / "model"), f"{name} version {number}")
    return version, reference


def _answers(context: Context, version: "ModelVersion", reference: Reference) -> tuple[Answers, Truths | None]:
    flags = context.flags
    since = table.moment(flags["since"], "since") if "since" in flags else None
    until = table.moment(flags["until"], "until", end=True) if "until" in flags else None
    if since is not None and until is not None and since >= until:
        raise CxrError(f"since={flags['since']}, until={flags['until']}: expected a since before until")
    source = storage.local(flags["input"], "input")
    answers = table.read(source, reference, str(version.version), since, until)
    for other, count in answers.others.items():
        context.log.warning("%d answers of version %s are left out", count, other)
    if "truth" not in flags:
        return answers, None
    rows, truth = truths.attach(answers.rows, storage.local(flags["truth"], "truth"), reference, context.settings.seed)
    if truth.unmatched:
        context.log.warning("%d truths are of images that are not among the answers", truth.unmatched)
    return Answers(rows, answers.files, answers.others, answers.outside), truth


def _model(version: "ModelVersion", reference: Reference) -> MonitoredModel:
    return MonitoredModel(
        name=version.name,
        version=int(version.version),
        classes=reference.classes,
        finding=reference.finding,
        images=reference.images,
        patients=reference.patients,
        out_of_fold=reference.out_of_fold,
        synthetic=trained_on_phantoms(version.tags),
        condition=label_shift.condition(reference.counts),
    )


def _input(context: Context, answers: Answers, truth: Truths | None) -> InputRows:
    rows = answers.rows
    return InputRows(
        source=context.flags["input"],
        files=answers.files,
        answers=len(rows),
        first=rows[TIME].iloc[0].to_pydatetime(),
        last=rows[TIME].iloc[-1].to_pydatetime(),
        others=answers.others,
        outside=answers.outside,
        points={str(name): int(count) for name, count in rows["operating_point"].value_counts().items()},
        truths=None if truth is None else len(truth.label),
        unmatched=0 if truth is None else truth.unmatched,
    )


def _alarms(whole: Part, windows: list[Window], unit: str) -> list[str]:
    found = [f"all answers: {line}" for line in alarms(whole)]
    for window in windows:
        if window.part is not None:
            found += [f"{unit} {window.begin:%Y-%m-%d}: {line}" for line in alarms(window.part)]
    return found


def _log(
    context: Context, version: "ModelVersion", report: MonitoringReport, reference: Reference, answers: Answers
) -> None:
    """Log `monitoring/`: figures, report.html and report.json; metrics, and the tag of the version."""
    read = answers.rows[answers.rows["status"] != ERROR]
    columns = {name: read[name].to_numpy(np.float64) for name in reference.columns}
    figures = plots.figures(report, reference, columns)
    for name, figure in figures.items():
        context.put_figure(figure, f"monitoring/figures/{name}.png")
    context.put_text(page(report, figures), "monitoring/report.html")
    context.put_text(report.to_json(), "monitoring/report.json")
    _log_metrics(context, report)
    made = Monitored(
        first=report.input.first.isoformat(timespec="seconds"),
        last=report.input.last.isoformat(timespec="seconds"),
        answers=report.input.answers,
        alarms=len(report.alarms),
        run_id=context.run_id,
        at=report.created.isoformat(timespec="seconds"),
    )
    monitored.record(context.client, version.name, str(version.version), made)
    context.tag("cxr.alarms", len(report.alarms))
    context.log.info("report: monitoring/report.html of run %s", context.run_id)


def _log_metrics(context: Context, report: MonitoringReport) -> None:
    """Metrics of all answers, and of each window with its number as the step and its beginning as the time."""
    context.metrics(_metrics(report.whole) | {"answers": report.input.answers, "alarms": len(report.alarms)})
    by_window = [
        Metric(f"window_{name}", value, int(window.begin.timestamp() * 1000), step)
        for step, window in enumerate(report.windows)
        if window.part is not None
        for name, value in _metrics(window.part).items()
    ]
    for start in range(0, len(by_window), _METRICS):
        context.client.log_batch(context.run_id, metrics=by_window[start : start + _METRICS])


def _metrics(part: Part) -> dict[str, float]:
    values: dict[str, float | None] = {"images": part.images}
    if part.label_psi is not None:
        values["psi_label"] = part.label_psi.value
    for name, column in part.columns.items():
        values |= {f"psi_{name}": column.psi.value, f"ks_{name}": column.ks.value}
    values |= {f"referred_{kind.replace(' ', '_')}": found.share for kind, found in part.referred.items()}
    values |= {f"share_{name}": found.share.value for name, found in part.label_shift.classes.items()}
    if part.scores is not None:
        values |= {name: score.value for name, score in part.scores.scores.items()}
    return {name: float(value) for name, value in values.items() if value is not None}
