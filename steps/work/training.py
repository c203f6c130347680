"""What `train` and `finetune` share: a training that is logged, checkpointed, resumed and kept as a bundle."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation.tuning import tune
from cxr.loading.build import open_cache
from cxr.loading.rasters import open_rasters
from cxr.models import bundle, device
from cxr.models.build import Network
from cxr.models.bundle import Bundle
from cxr.settings import differences, load
from cxr.settings.schema import CacheSettings, TrainingSettings
from cxr.training import checkpoint, distributed
from cxr.training.curves import training_curves
from cxr.training.distributed import Processes
from cxr.training.loop import Callbacks, Training, train
from cxr.training.results import Epoch, TrainingResult, Validation
from cxr.training.resuming import State
from cxr.training.setup import set_up
from steps.runtime import step_key
from steps.runtime.context import Context

if TYPE_CHECKING:
    from mlflow.entities import Run

LAST = "checkpoint/last.pt"
KEEP_EVERY_S = 20  # a killed process loses no more than this: its checkpoint has the best weights as well


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a process needs for a training; the first one hands it to the others, which have no store and no run."""

    network: Network
    manifest: Manifest
    settings: TrainingSettings
    cache: CacheSettings
    unfreeze: int | str
    seed: int
    device: str
    precision: str
    deterministic: bool
    state: State | None


def begin(context: Context, inputs: list[str]) -> State | None:
    """Tag the run with its key; with `resume`, continue in that earlier run and return its last checkpoint."""
    components = step_key.components(context.step.name, context.settings, inputs)
    resume = context.flags.get("resume")
    if resume is None:
        step_key.tag(context, components)
        return None
    earlier = _resumable(context, resume)
    tags = earlier.data.tags
    changed = [name for name in ("settings", "inputs") if tags.get(f"cxr.key.{name}") != components[name]]
    if changed:
        raise CxrError(
            f"resume={resume}: its {' and '.join(changed)} differ from those of this command"
            f"{_differences(context, resume) if 'settings' in changed else ''}; "
            "resume with the same ones, or train from scratch, without resume"
        )
    state = checkpoint.load(context.fetch(resume, LAST))
    context.continue_run(earlier)
    context.log.info("resuming run %s after epoch %d", resume, state["epoch"])
    return state


def _differences(context: Context, run_id: str) -> str:
    """The settings that another run of this step had, where they differ, in brackets."""
    name = context.step.name
    then = step_key.used_values(name, load.read_file(context.fetch(run_id, "settings.yaml")))
    found = differences.told(then, step_key.used_settings(name, context.settings))
    return f" ({found})" if found else ""


def load_manifest(context: Context, split_run_id: str) -> Manifest:
    """The manifest that a prepare_split run has logged; one without validation images raises `CxrError`."""
    manifest = Manifest.load(context.fetch(split_run_id, "split"))
    if not len(manifest.split("val")):
        raise CxrError(
            f"the split of run {split_run_id} has no validation images, on which training chooses its epoch; run "
            "prepare_split with data.val_size above 0"
        )
    return manifest


def train_and_log(
    context: Context,
    network: Network,
    manifest: Manifest,
    settings: TrainingSettings,
    unfreeze: int | str,
    state: State | None,
) -> TrainingResult:
    """Train, logging every epoch; keep the best weights as `bundle/` and the last state as `checkpoint/`.

    Processes that were started together with this one, the first, take part (see `take_part`).
    """
    common = context.settings
    job = Job(
        network=network,
        manifest=manifest,
        settings=settings,
        cache=common.cache,
        unfreeze=unfreeze,
        seed=common.seed,
        device=common.device,
        precision=common.precision,
        deterministic=common.deterministic,
        state=state,
    )
    metric = settings.metric_name
    keeper = _BundleKeeper(context, network, manifest, metric)

    def on_start(start: Validation) -> None:
        context.metrics({"val_loss": start.val_loss, "val_metric": start.val_metric} | _clean(start), step=0)
        context.log.info("before epoch 1: validation loss %.4f, %s %.4f", start.val_loss, metric, start.val_metric)

    def on_epoch(record: Epoch) -> None:
        context.metrics(record.values(), step=record.epoch)
        context.log.info(
            "epoch %d of %d: loss %.4f, validation loss %.4f, %s %.4f%s, %.0f images/s",
            *(record.epoch, settings.epochs, record.train_loss, record.val_loss),
            *(metric, record.val_metric, " of averaged weights" if record.averaged else "", record.images_per_second),
        )

    def on_checkpoint(last: State) -> None:
        file = context.folder / "last.pt"
        checkpoint.save(last, file)
        context.put(file, "checkpoint")

    with distributed.group() as processes:
        context.tag("cxr.processes", processes.share.world)
        callbacks = Callbacks(on_start, on_epoch, keeper.improved, on_checkpoint)
        training = _set_up(processes.from_first(job), processes, callbacks)
        try:
            result = train(training, state)
        finally:
            keeper.keep()  # however the training ended, the network has its best weights now
    best = result.best
    keeper.finish(best, str(training.device.device))
    scores = {"best_epoch": best.epoch, "best_val_metric": best.val_metric, "best_val_loss": best.val_loss}
    context.metrics(scores | _clean(best, "best_"))
    context.put_figure(training_curves(result, metric), "figures/training.png")
    context.log.info(
        "best epoch %d of %d: %s %.4f, validation loss %.4f (stopped by %s)",
        *(best.epoch, len(result.history), metric, best.val_metric, best.val_loss, result.stopped),
    )
    if not best.epoch:
        context.log.warning("no epoch improved on the weights that training began with: those are kept")
    return result


def take_part() -> None:
    """Train as one of several processes but the first, which has the run: what it hands out, and nothing else.

    Raises:
        MeetingError: the others are not found.
        LostError: another process has ended.
    """
    with distributed.group() as processes:
        job: Job = processes.from_first(None)
        train(_set_up(job, processes), job.state)


def _set_up(job: Job, processes: Processes, callbacks: Callbacks | None = None) -> Training:
    where = device.pick(job.device, job.precision)
    processes.use(where)
    device.prepare(job.seed, job.deterministic)
    return set_up(
        job.network,
        job.manifest,
        job.settings,
        unfreeze=job.unfreeze,
        device=where,
        seed=job.seed,
        callbacks=callbacks,
        cache=job.cache,
        processes=processes,
    )


def _clean(scores: Validation, before: str = "") -> dict[str, float]:
    """The metric of the unchanged images, under its name in MLflow, where another one chooses the epoch."""
    clean = scores.val_metric_clean
    return {} if clean is None else {f"{before}val_metric_clean": clean}


class _BundleKeeper:
    """Keeps the best weights as the run's bundle: at the end, and now and then before."""

    def __init__(self, context: Context, network: Network, manifest: Manifest, metric: str):
        self.context, self.network, self.manifest, self.metric = context, network, manifest, metric
        self.pending: Epoch | None = None
        self.kept_at = time.monotonic()

    def improved(self, record: Epoch) -> None:
        """Note an improvement; epochs on cached features are too fast to write a bundle for each of them."""
        self.pending = record
        if time.monotonic() - self.kept_at > KEEP_EVERY_S:
            self.keep()

    def keep(self) -> None:
        """Write what has improved since the last time."""
        if self.pending is None:
            return
        self._write(Bundle(self.network, facts=self._facts(self.pending), finding=self.manifest.finding))
        self.pending, self.kept_at = None, time.monotonic()

    def finish(self, best: Validation, where: str) -> None:
        """Keep the final bundle, with temperature and operating points chosen on validation."""
        settings = self.context.settings
        final = Bundle(self.network, facts=self._facts(best), finding=self.manifest.finding)
        val = open_rasters(self.manifest.split("val"), self.network.spec, open_cache(settings.cache))
        tune(final, val, settings.calibration, where)
        self.context.metrics({"temperature": final.temperature})
        self._write(final)

    def _facts(self, record: Validation) -> dict[str, Any]:
        return {
            "step": self.context.step.name,
            "run_id": self.context.run_id,
            "manifest_digest": self.manifest.digest,
            "metric": self.metric,
            "epoch": record.epoch,
            "val_metric": record.val_metric,
            "val_loss": record.val_loss,
        } | _clean(record)

    def _write(self, kept: Bundle) -> None:
        folder = self.context.folder / "bundle"
        self.context.tag("cxr.output_digest", bundle.save(kept, folder))
        self.context.put(folder, "bundle")


def _resumable(context: Context, run_id: str) -> "Run":
    from steps.runtime import runs  # imports MLflow, which the other processes of a training do without

    run = runs.known(context.client, run_id)
    if run is None:
        raise CxrError(f"resume={run_id}: no run with this ID; give the ID of an interrupted training")
    kind = run.data.tags.get("cxr.step")
    if kind != context.step.name:
        raise CxrError(f"resume={run_id}: expected a run of {context.step.name}, got one of {kind}")
    if run.info.status == "RUNNING":
        raise CxrError(f"resume={run_id} is still running; stop it first, or train from scratch, without resume")
    return run
