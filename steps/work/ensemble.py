"""Work of `ensemble`: combine the bundles of several runs, calibrate the result and log it.

An ensemble of folds is calibrated on out-of-fold answers, any other on its own answers to the common validation split.
"""

from functools import partial
from typing import Any

import torch
from numpy import ndarray

from cxr.datasets import folds
from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation import out_of_fold
from cxr.evaluation.calibration import negative_log_likelihood
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.evaluation.tuning import tune_on
from cxr.loading.build import open_cache
from cxr.loading.rasters import open_rasters
from cxr.models import bundle, device
from cxr.models.ensemble import combine
from cxr.serving.probabilities import softmax
from cxr.settings import instantiate
from cxr.settings.schema import TrainingSettings
from steps.runtime import runs
from steps.runtime.context import Context
from steps.work.training import load_manifest

_BATCH = 64


def run(context: Context) -> None:
    """Combine the bundles of the runs `run_ids`, which share one split or are those of all folds."""
    run_ids = [run_id.strip() for run_id in context.flags.get("run_ids", "").split(",") if run_id.strip()]
    if len(set(run_ids)) < 2:
        raise CxrError("run_ids: expected the IDs of at least 2 runs, separated by commas: -P run_ids=RUN,RUN")
    kinds = ("finetune", "train")
    runs_ = [runs.find(context.client, context.experiment_id, kinds, run_id, "run_ids") for run_id in run_ids]
    split_run_ids = [run.data.tags["cxr.split_run_id"] for run in runs_]
    manifests = _manifests(context, split_run_ids)
    members = [bundle.load(context.fetch(run_id, "bundle")) for run_id in run_ids]
    combined = combine(members)
    bundle.check_classes(combined, manifests[0].classes, manifests[0].finding)
    where = str(device.pick(context.settings.device, "float32").device)
    device.prepare(context.settings.seed, context.settings.deterministic)
    rasters = partial(open_rasters, cache=open_cache(context.settings.cache))
    facts: dict[str, Any] = {"step": "ensemble", "run_id": context.run_id, "members": run_ids}
    steps = {run.data.tags["cxr.step"] for run in runs_}
    facts["members_step"] = steps.pop() if len(steps) == 1 else None
    if len(manifests) > 1:
        manifest = manifests[0].cross_validated()
        val = manifest.split("val")
        answers = out_of_fold.answer(members, manifests, rasters, where)
        logits = answers.logits
        digest = answers.save(context.folder / "bundle", manifest)
        facts |= {"folds": len(manifests), "out_of_fold_sha256": digest}
    else:
        manifest = manifests[0]
        val = manifest.split("val")
        logits = predict_logits(Predictor(combined, where), rasters(val, combined.network.spec), _BATCH)
    tune_on(combined, logits, val.labels(), context.settings.calibration)
    facts |= {"manifest_digest": manifest.digest}
    facts |= _scores(softmax(logits / combined.temperature), val, context.settings.finetune)
    combined.facts = facts
    context.metrics({"best_val_metric": facts["val_metric"], "best_val_loss": facts["val_loss"]})
    context.tag("cxr.split_run_id", split_run_ids[0])
    context.tag("cxr.members", ",".join(run_ids))
    context.tag("cxr.output_digest", bundle.save(combined, context.folder / "bundle"))
    context.put(context.folder / "bundle", "bundle")
    context.log.info("%d networks; %s %.4f on validation", len(run_ids), facts["metric"], facts["val_metric"])


def _manifests(context: Context, split_run_ids: list[str]) -> list[Manifest]:
    """The one split that the runs share, or that of each run if they are those of all folds."""
    different = sorted(set(split_run_ids))
    by_run = {run_id: load_manifest(context, run_id) for run_id in different}
    if len({manifest.digest for manifest in by_run.values()}) == 1:  # of one run, or of several alike
        return [by_run[different[0]]]
    manifests = [by_run[run_id] for run_id in split_run_ids]
    if not folds.complete(manifests):
        raise CxrError(
            "run_ids: expected runs of one split, or one run of every fold of a cross-validation, "
            f"got runs of the splits {', '.join(different)}"
        )
    return manifests


def _scores(probabilities: ndarray, val: Manifest, settings: TrainingSettings) -> dict[str, Any]:
    """Metric and loss of calibrated probabilities (n, C) on validation, named as those of a training."""
    labels = val.labels()
    metric = instantiate.metric(settings.metric, len(val.classes))
    metric.update(torch.from_numpy(probabilities), torch.from_numpy(labels))
    return {
        "metric": settings.metric.target.rpartition(".")[2],
        "val_metric": float(metric.compute()),
        "val_loss": negative_log_likelihood(probabilities, labels),
    }
