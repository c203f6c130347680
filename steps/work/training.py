"""What `train` and `finetune` share: an engine run that is logged, checkpointed, resumed and kept as a bundle."""

import time
from typing import TYPE_CHECKING

import torch

from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation.calibration import negative_log_likelihood
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.tuning import logits_of, tune
from cxr.models import bundle, device
from cxr.models.build import Network
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import softmax
from cxr.settings import instantiate
from cxr.settings.schema import TrainingSettings
from cxr.training import checkpoint
from cxr.training.curves import training_curves
from cxr.training.loop import Callbacks, Epoch, FitResult, State
from cxr.training.setup import fit_network
from steps.runtime import step_key
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow.entities import Run

LAST = "checkpoint/last.pt"
KEEP_EVERY_S = 20  # a process that is killed loses no more: its checkpoint has the best weights as well


def begin(context: Context, inputs: list[str]) -> State | None:
    """Tag the run with its key; with `resume`, go on in that earlier run and return its last checkpoint."""
    parts = step_key.components(context.step.name, context.settings, inputs)
    given = context.flags.get("resume")
    if given is None:
        step_key.tag(context, parts)
        return None
    earlier = _resumable(context, given)
    changed = [name for name in ("settings", "inputs") if earlier.data.tags.get(f"cxr.key.{name}") != parts[name]]
    if changed:
        raise CxrError(
            f"resume={given}: its {' and '.join(changed)} are not those of this command; "
            "resume with the same ones, or train anew without resume"
        )
    state = checkpoint.load(context.fetch(given, LAST))
    context.continue_run(earlier)
    context.log.info("going on with run %s after epoch %d", given, state["epoch"])
    return state


def manifest_of(context: Context, split_run_id: str) -> Manifest:
    """The manifest that a prepare_split run has logged."""
    return Manifest.load(context.fetch(split_run_id, "split"))


def train_and_keep(
    context: Context,
    network: Network,
    manifest: Manifest,
    settings: TrainingSettings,
    unfreeze: int | str,
    state: State | None,
) -> FitResult:
    """Run the engine; log every epoch, keep the best weights as `bundle/` and the last state as `checkpoint/`."""
    where = device.pick(context.settings.device, context.settings.precision)
    device.prepare(context.settings.seed, context.settings.deterministic)
    metric = settings.metric.target.rpartition(".")[2]
    facts = {"step": context.step.name, "run_id": context.run_id, "manifest_digest": manifest.digest, "metric": metric}

    def on_epoch(record: Epoch) -> None:
        context.metrics(record.values(), step=record.epoch)
        context.log.info(
            "epoch %d of %d: loss %.4f, validation loss %.4f, %s %.4f, %.0f images/s",
            record.epoch, settings.epochs, record.train_loss, record.val_loss, metric, record.val_metric,
            record.images_per_second,
        )  # fmt: skip

    def on_improved(record: Epoch) -> None:
        keeper.improved(_facts(facts, record))

    def on_checkpoint(last: State) -> None:
        file = context.folder / "last.pt"
        checkpoint.save(last, file)
        context.put(file, "checkpoint")

    keeper = _Keeper(context, network)
    try:
        result = fit_network(
            network, manifest, settings, unfreeze=unfreeze, device=where, seed=context.settings.seed, resume=state,
            callbacks=Callbacks(on_epoch, on_improved, on_checkpoint), cache=context.settings.cache,
        )  # fmt: skip
    finally:
        keeper.keep()  # however the training ended, the network has its best weights now
    best = result.best
    keeper.finish(manifest, _facts(facts, best), str(where.device))
    context.metrics({"best_epoch": best.epoch, "best_val_metric": best.val_metric, "best_val_loss": best.val_loss})
    context.put_figure(training_curves(result.history, best.epoch, metric), "figures/training.png")
    context.log.info(
        "best epoch %d of %d: %s %.4f, validation loss %.4f (stopped by %s)",
        best.epoch, len(result.history), metric, best.val_metric, best.val_loss, result.stopped,
    )  # fmt: skip
    return result


def validated(made: Bundle, manifest: Manifest, settings: TrainingSettings, device: str) -> dict:
    """Metric and loss of a finished bundle on the validation part, by the names that a training gives them."""
    part = manifest.split("val")
    probabilities = softmax(logits_of(Predictor(made, device), part, settings.batch_size) / made.temperature)
    labels = part.labels()
    metric = instantiate.metric(settings.metric, len(manifest.classes))
    metric.update(torch.from_numpy(probabilities), torch.from_numpy(labels))
    return {
        "metric": settings.metric.target.rpartition(".")[2],
        "val_metric": float(metric.compute()),
        "val_loss": negative_log_likelihood(probabilities, labels),
    }


def _facts(common: dict, record: Epoch) -> dict:
    return {**common, "epoch": record.epoch, "val_metric": record.val_metric, "val_loss": record.val_loss}


class _Keeper:
    """Keeps the best weights as the run's bundle: at the end, and now and then before."""

    def __init__(self, context: Context, network: Network):
        self.context, self.network = context, network
        self.pending: dict | None = None
        self.kept_at = time.monotonic()

    def improved(self, facts: dict) -> None:
        """Take note of the network's weights; epochs on stored features are too quick to write each of them."""
        self.pending = facts
        if time.monotonic() - self.kept_at > KEEP_EVERY_S:
            self.keep()

    def keep(self) -> None:
        if self.pending is None:
            return
        self._write(Bundle(self.network, facts=self.pending))
        self.pending, self.kept_at = None, time.monotonic()

    def finish(self, manifest: Manifest, facts: dict, device: str) -> None:
        """Keep the final bundle, completed by what validation decides: temperature and operating points."""
        final = Bundle(self.network, facts=facts)
        tune(final, manifest, self.context.settings.calibration, device)
        self.context.metrics({"temperature": final.temperature})
        self._write(final)

    def _write(self, kept: Bundle) -> None:
        folder = self.context.folder / "bundle"
        self.context.tag("cxr.output_digest", bundle.save(kept, folder))
        self.context.put(folder, "bundle")


def _resumable(context: Context, run_id: str) -> "Run":
    from mlflow.exceptions import MlflowException

    try:
        run = context.client.get_run(run_id)
    except MlflowException:
        raise CxrError(f"resume={run_id}: there is no such run; give the ID of an interrupted training") from None
    kind = run.data.tags.get("cxr.step")
    if kind != context.step.name:
        raise CxrError(f"resume={run_id} is a run of {kind!r}; needed is one of {context.step.name}")
    if run.info.status == "RUNNING":
        raise CxrError(f"resume={run_id} is still running; stop it first, or train anew without resume")
    return run
