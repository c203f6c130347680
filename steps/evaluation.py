"""The work of `evaluate`: probabilities of the test part, scores, files, and the registered version."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr import bundle, device, metrics, targets
from cxr.bundle import Bundle
from cxr.errors import CxrError
from cxr.eval_figures import figures
from cxr.manifest import Manifest, read_verified
from cxr.predictor import Predictor
from steps import keys, registry
from steps.context import Context


def evaluate(context: Context) -> None:
    """Score the bundle that the command line names, and register it."""
    folder, split_run_id = _inputs(context)
    loaded = bundle.load(folder)
    manifest = Manifest.load(context.fetch(split_run_id, "split"))
    bundle.check_classes(loaded, manifest.classes)
    digest = bundle.digest(folder)
    keys.tag(context, keys.components("evaluate", context.settings, [digest]))
    test = manifest.part("test")
    if not len(test):
        raise CxrError("the split has no test images; run prepare_split with data.test_size above 0")
    probabilities = _probabilities(context, loaded, test)
    scores = _scores(context, test, probabilities, loaded)
    _keep(context, test, probabilities, scores)
    context.tag("cxr.output_digest", digest)
    if context.settings.registry.register_model:
        _register(context, folder, loaded, manifest, digest)


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


def _probabilities(context: Context, loaded: Bundle, test: Manifest) -> np.ndarray:
    where = device.pick(context.settings.device, "float32")
    device.prepare(context.settings.seed, context.settings.deterministic)
    predictor = Predictor(loaded, str(where.device))
    context.log.info("evaluating %s on %d test images on %s", loaded.network.name, len(test), where)
    readers = [lambda i=i: read_verified(test, i) for i in range(len(test))]
    probabilities = predictor.predict(readers, context.settings.evaluate.batch_size)
    if not np.isfinite(probabilities).all():
        raise CxrError("the network's answers are not finite numbers; train again, with precision=float32")
    return probabilities


def _scores(context: Context, test: Manifest, probabilities: np.ndarray, loaded: Bundle) -> dict[str, Any]:
    labels = test.labels()
    scores = metrics.scores(labels, probabilities, test.classes)
    metric = targets.metric(context.settings.evaluate.metric, len(test.classes))
    metric.update(torch.from_numpy(probabilities), torch.from_numpy(labels))
    scores["metric"] = float(metric.compute())
    context.metrics({f"test_{k}": v for k, v in metrics.flat(scores).items()})
    if "val_metric" in loaded.facts:
        context.metrics({"val_metric": loaded.facts["val_metric"], "val_loss": loaded.facts["val_loss"]})
    context.log.info(
        "test: macro-F1 %.4f, loss %.4f, accuracy %.4f on %d images",
        scores["macro_f1"], scores["loss"], scores["accuracy"], len(test),
    )  # fmt: skip
    return scores


def _keep(context: Context, test: Manifest, probabilities: np.ndarray, scores: dict[str, Any]) -> None:
    """Log `evaluation/`, and copy it to `out` where that is given."""
    labels, classes = test.labels(), test.classes
    confusion = metrics.confusion(labels, probabilities, classes)
    for name, figure in figures(labels, probabilities, classes, "test part").items():
        context.put_figure(figure, f"evaluation/figures/{name}")
    context.put_json(
        {"classes": list(classes), "rows": "truth", "columns": "predicted", "counts": confusion.tolist()},
        "evaluation/confusion.json",
    )
    context.put_json(_predictions(test, probabilities), "evaluation/predictions.json")
    context.put_json(scores, "evaluation/scores.json")
    if "out" in context.flags:
        out = Path(context.flags["out"]).expanduser()
        try:
            shutil.copytree(context.fetch(context.run_id, "evaluation"), out, dirs_exist_ok=True)
        except OSError as error:
            raise CxrError(f"out={out}: {error.strerror or error}; name a folder that can be written") from None
        context.log.info("copied to %s", out)


def _predictions(test: Manifest, probabilities: np.ndarray) -> list[dict[str, Any]]:
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


def _register(context: Context, folder: Path, loaded: Bundle, manifest: Manifest, digest: str) -> None:
    facts = loaded.facts
    if "val_metric" not in facts or facts.get("manifest_digest") is None:
        raise CxrError("the bundle does not tell its validation metric; only bundles of a training can be registered")
    lineage = {k: v for k, v in context.client.get_run(context.run_id).data.tags.items() if k.endswith("_run_id")}
    tags = {k: v for k, v in lineage.items() if k.startswith("cxr.")} | {
        "cxr.evaluate_run_id": context.run_id,
        "cxr.manifest_digest": facts["manifest_digest"],
        "cxr.bundle_digest": digest,
        "cxr.val_metric": str(facts["val_metric"]),
        "cxr.val_metric_name": facts["metric"],
        "cxr.synthetic": str(bool(manifest.source.get("synthetic"))).lower(),
    }
    made, verdict = registry.register(context, folder, loaded, tags)
    context.tag("cxr.model_version", made.version)
    context.tag("cxr.gate", verdict)
