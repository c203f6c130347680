"""The work of `evaluate`: answers on validation and test, scores, the gate, the registered version, the report."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray

from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation import assess, cam, figures, gallery, metrics, plots, robustness, subgroups, tuning
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from cxr.models import bundle, device
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import softmax
from cxr.settings import instantiate
from steps.registry import registry
from steps.registry.champion import ChampionComparison
from steps.runtime import step_key
from steps.runtime.context import Context
from steps.work import reporting

PARTS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a bundle, its network at work, and the split it answers on."""

    folder: Path
    bundle: Bundle
    predictor: Predictor
    manifest: Manifest
    split_run_id: str
    digest: str


def evaluate(context: Context) -> None:
    """Score the bundle that the command line names, register it, and write the report."""
    subject = _subject(context)
    settings = context.settings.evaluate
    logits, samples, found = {}, {}, {}
    for split, word in PARTS.items():
        part = subject.manifest.split(split)
        context.log.info("evaluating %s on %d %s images", subject.bundle.network.name, len(part), word)
        logits[split] = tuning.logits_of(subject.predictor, part, settings.batch_size)
        samples[split] = Sample.of(part, context.settings.seed)
        found[split] = assess.assess(samples[split], logits[split], subject.bundle, settings.prevalences)
    answers = {split: softmax(values / subject.bundle.temperature) for split, values in logits.items()}
    _log_scores(context, subject, found, answers["test"])
    pictures = _pictures(context, subject, logits["test"], samples["test"])
    rivals = ChampionComparison(context, subject.manifest, samples, answers)
    facts = {"validation": found["val"], "test": found["test"], **_where_it_fails(context, subject, samples, answers)}
    facts["mistakes"] = pictures.pop("mistakes")
    if context.settings.registry.register_model:
        facts |= registry.register(context, subject.bundle, _tags(context, subject), found, rivals)
    _keep(context, subject, answers["test"])
    reporting.report(context, subject, facts, pictures)
    context.tag("cxr.output_digest", subject.digest)
    _copy(context)


def _subject(context: Context) -> Subject:
    folder, split_run_id = _inputs(context)
    loaded = bundle.load(folder)
    manifest = Manifest.load(context.fetch(split_run_id, "split"))
    bundle.check_classes(loaded, manifest.classes)
    digest = bundle.digest(folder)
    step_key.tag(context, step_key.components("evaluate", context.settings, [digest]))
    for split, word in PARTS.items():
        if not len(manifest.split(split)):
            raise CxrError(f"the split has no {word} images; run prepare_split with data.{split}_size above 0")
    where = device.pick(context.settings.device, "float32")
    device.prepare(context.settings.seed, context.settings.deterministic)
    predictor = Predictor(loaded, str(where.device))
    return Subject(folder, loaded, predictor, manifest, split_run_id, digest)


def _inputs(context: Context) -> tuple[Path, str]:
    """The bundle's folder and the ID of the split run to score it on."""
    if "bundle" in context.flags and "run_id" in context.flags:
        raise CxrError("run_id and bundle are both given; give one of them")
    if "bundle" in context.flags:
        return Path(context.flags["bundle"]).expanduser(), context.parent("split_run_id").info.run_id
    run = context.parent("run_id")
    if "split_run_id" in context.flags:
        split_run_id = context.parent("split_run_id").info.run_id
    else:
        split_run_id = run.data.tags["cxr.split_run_id"]
    return context.fetch(run.info.run_id, "bundle"), split_run_id


def _log_scores(context: Context, subject: Subject, found: dict[str, Any], probabilities: ndarray) -> None:
    """Every test score and its interval as metrics, the configured metric, and one line for the log."""
    test = found["test"]["scores"]
    values = {f"test_{k}": v["value"] for k, v in test.items()}
    values |= {f"test_{k}_{end}": v[end] for k, v in test.items() for end in ("low", "high")}
    values |= {f"val_{k}": v["value"] for k, v in found["val"]["scores"].items()}
    values |= {f"test_{k}": v for k, v in found["test"]["calibration"]["after"].items()}
    metric = instantiate.metric(context.settings.evaluate.metric, len(subject.manifest.classes))
    metric.update(torch.from_numpy(probabilities), torch.from_numpy(subject.manifest.split("test").labels()))
    values["test_metric"] = float(metric.compute())
    if "val_metric" in subject.bundle.facts:
        values |= {name: subject.bundle.facts[name] for name in ("val_metric", "val_loss")}
    context.metrics({name: value for name, value in values.items() if value is not None})
    context.log.info(
        "test: macro-F1 %.4f (%.4f to %.4f), loss %.4f, accuracy %.4f on %d images of %d patients",
        *test["macro_f1"].values(), test["loss"]["value"], test["accuracy"]["value"], found["test"]["images"],
        found["test"]["patients"],
    )  # fmt: skip


def _pictures(context: Context, subject: Subject, logits: ndarray, sample: Sample) -> dict[str, Any]:
    """Figures by name, and under `mistakes` the list behind the gallery."""
    loaded, test, words = subject.bundle, subject.manifest.split("test"), "test part"
    probabilities = softmax(logits / loaded.temperature)
    drawn = figures.figures(sample.labels, probabilities, test.classes, words, loaded.operating_points)
    drawn["reliability"] = plots.reliability(logits, sample.labels, loaded.temperature, words)
    maps = cam.Activation.of(subject.predictor, loaded.network)
    most = context.settings.evaluate.gallery
    worst = gallery.mistakes(test, probabilities, subject.predictor, maps, most)
    drawn["gallery"] = gallery.sheet(worst, maps is not None)
    listed = [{k: v for k, v in vars(one).items() if k != "picture"} for one in worst]
    return {**drawn, "mistakes": {"maps": maps is not None, "images": listed}}


def _where_it_fails(
    context: Context, subject: Subject, samples: dict[str, Sample], answers: dict[str, ndarray]
) -> dict[str, Any]:
    test, settings = subject.manifest.split("test"), context.settings.evaluate
    found: dict[str, Any] = {"subgroups": subgroups.by_group(test, samples["test"], answers["test"])}
    if settings.robustness:
        context.log.info("scoring under %d changes of the pictures", len(robustness.CHANGES) - 1)
        maps = cam.Activation.of(subject.predictor, subject.bundle.network)
        found["robustness"] = robustness.robustness(
            subject.predictor, maps, test, context.settings.seed, settings.robustness_images, settings.batch_size
        )
    return found


def _keep(context: Context, subject: Subject, probabilities: ndarray) -> None:
    """Log the numbers behind the report: confusion and every prediction."""
    test = subject.manifest.split("test")
    confusion = metrics.confusion(test.labels(), probabilities, test.classes)
    context.put_json(
        {"classes": list(test.classes), "rows": "truth", "columns": "predicted", "counts": confusion.tolist()},
        "evaluation/confusion.json",
    )
    context.put_json(_predictions(test, probabilities), "evaluation/predictions.json")


def _copy(context: Context) -> None:
    """Copy `evaluation/` to `out` where that is given."""
    if "out" not in context.flags:
        return
    out = Path(context.flags["out"]).expanduser()
    try:
        shutil.copytree(context.fetch(context.run_id, "evaluation"), out, dirs_exist_ok=True)
    except OSError as error:
        raise CxrError(f"out={out}: {error.strerror or error}; name a folder that can be written") from None
    context.log.info("copied to %s", out)


def _predictions(test: Manifest, probabilities: ndarray) -> list[dict[str, Any]]:
    return [
        {
            "path": row.path,
            "patient": row.patient,
            "truth": row.label,
            "prediction": test.classes[int(own.argmax())],
            "probabilities": dict(zip(test.classes, own.tolist(), strict=True)),
        }
        for row, own in zip(test.rows.itertuples(), probabilities, strict=True)
    ]


def _tags(context: Context, subject: Subject) -> dict[str, str]:
    """What a registered version leads back to."""
    facts = subject.bundle.facts
    if "val_metric" not in facts or facts.get("manifest_digest") is None:
        raise CxrError("the bundle does not tell its validation metric; only bundles of a training can be registered")
    lineage = {k: v for k, v in context.client.get_run(context.run_id).data.tags.items() if k.endswith("_run_id")}
    return {k: v for k, v in lineage.items() if k.startswith("cxr.")} | {
        "cxr.evaluate_run_id": context.run_id,
        "cxr.manifest_digest": facts["manifest_digest"],
        "cxr.bundle_digest": subject.digest,
        "cxr.val_metric": str(facts["val_metric"]),
        "cxr.val_metric_name": facts["metric"],
        "cxr.synthetic": str(bool(subject.manifest.source.get("synthetic"))).lower(),
    }
