"""Work of `ensemble`: combine the bundles of several runs, calibrate the result and log it."""

from typing import Any

import torch

from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation.calibration import negative_log_likelihood
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.evaluation.tuning import tune
from cxr.loading.build import open_cache
from cxr.loading.rasters import RasterDataset, open_rasters
from cxr.models import bundle, device
from cxr.models.bundle import Bundle
from cxr.models.ensemble import combine
from cxr.serving.probabilities import softmax
from cxr.settings import instantiate
from cxr.settings.schema import TrainingSettings
from steps.runtime import runs
from steps.runtime.context import Context
from steps.work.training import load_manifest


def run(context: Context) -> None:
    """Combine the bundles of the runs `run_ids`, which share one split."""
    run_ids = [run_id.strip() for run_id in context.flags.get("run_ids", "").split(",") if run_id.strip()]
    if len(set(run_ids)) < 2:
        raise CxrError("run_ids: expected the IDs of at least 2 runs, separated by commas: -P run_ids=RUN,RUN")
    kinds = ("finetune", "train")
    members = [runs.find(context.client, context.experiment_id, kinds, run_id, "run_ids") for run_id in run_ids]
    splits = {member.data.tags["cxr.split_run_id"] for member in members}
    if len(splits) > 1:
        raise CxrError(f"run_ids: expected runs of one split, got runs of the splits {', '.join(sorted(splits))}")
    split_run_id = splits.pop()
    manifest = load_manifest(context, split_run_id)
    combined = combine([bundle.load(context.fetch(member.info.run_id, "bundle")) for member in members])
    bundle.check_classes(combined, manifest.classes)
    where = str(device.pick(context.settings.device, "float32").device)
    device.prepare(context.settings.seed, context.settings.deterministic)
    val = manifest.split("val")
    rasters = open_rasters(val, combined.network.spec, open_cache(context.settings.cache))
    tune(combined, rasters, context.settings.calibration, where)
    facts: dict[str, Any] = {"step": "ensemble", "run_id": context.run_id, "manifest_digest": manifest.digest}
    facts |= {"members": run_ids, **_scores(combined, val, rasters, context.settings.finetune, where)}
    combined.facts = facts
    context.metrics({"best_val_metric": facts["val_metric"], "best_val_loss": facts["val_loss"]})
    context.tag("cxr.split_run_id", split_run_id)
    context.tag("cxr.members", ",".join(run_ids))
    context.tag("cxr.output_digest", bundle.save(combined, context.folder / "bundle"))
    context.put(context.folder / "bundle", "bundle")
    context.log.info("%d networks; %s %.4f on validation", len(run_ids), facts["metric"], facts["val_metric"])


def _scores(
    combined: Bundle, val: Manifest, rasters: RasterDataset, settings: TrainingSettings, where: str
) -> dict[str, Any]:
    """Metric and loss of the calibrated ensemble on validation, named as those of a training."""
    logits = predict_logits(Predictor(combined, where), rasters, settings.batch_size)
    probabilities, labels = softmax(logits / combined.temperature), val.labels()
    metric = instantiate.metric(settings.metric, len(val.classes))
    metric.update(torch.from_numpy(probabilities), torch.from_numpy(labels))
    return {
        "metric": settings.metric.target.rpartition(".")[2],
        "val_metric": float(metric.compute()),
        "val_loss": negative_log_likelihood(probabilities, labels),
    }
