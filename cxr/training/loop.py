"""The training loop: epochs of batches, validation, early stopping, and checkpoints to resume from.

The network is a frozen prefix and a trainable suffix, whether the suffix is a new head, the last blocks or the whole
network. Only the suffix changes, so its weights are all that is checkpointed and compared.
"""

import copy
import logging
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchmetrics import Metric
from tqdm import tqdm

from cxr.errors import CxrError
from cxr.loading.batches import Loader
from cxr.models.device import Device, explaining_nondeterminism, widest_float
from cxr.models.freezing import run_frozen
from cxr.models.speedups import FastDepthwise
from cxr.settings.schema import TrainingSettings
from cxr.training import resuming
from cxr.training.distributed import Processes
from cxr.training.early_stopping import EarlyStopping
from cxr.training.optimisation import Schedule
from cxr.training.results import Epoch, TrainingResult, Validation
from cxr.training.resuming import State

log = logging.getLogger(__name__)


def _do_nothing(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Callbacks:
    """Hooks of the loop.

    Attributes:
        on_start: called before the first epoch, with the scores of the weights that training begins with.
        on_epoch: called after every epoch.
        on_improved: called after every improvement, while the suffix has the best weights.
        on_checkpoint: called every `checkpoint_interval` epochs and at the end, with a state that `train` resumes from.
    """

    on_start: Callable[[Validation], None] = _do_nothing
    on_epoch: Callable[[Epoch], None] = _do_nothing
    on_improved: Callable[[Epoch], None] = _do_nothing
    on_checkpoint: Callable[[State], None] = _do_nothing


@dataclass(kw_only=True)
class Training:
    """Everything the loop works on; `cxr.training.setup` builds it.

    `val` has the validation images as they are, `val_changed` some of them under each change that also decides which
    weights are best. `loss` may weight classes, `val_loss` must not; both take (logits, labels). `fingerprint` must
    equal that of a checkpoint to resume from it. With several `processes`, each has its rows of every batch, and all of
    them the same weights and scores.
    """

    prefix: nn.Module
    suffix: nn.Module
    averaged: AveragedModel | None
    train: Loader
    val: Loader
    val_changed: list[Loader]
    loss: nn.Module
    val_loss: nn.Module
    metric: Metric
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    settings: TrainingSettings
    device: Device
    seed: int
    fingerprint: dict[str, str]
    callbacks: Callbacks = field(default_factory=Callbacks)
    processes: Processes = field(default_factory=Processes)

    def logits(self, x: Tensor, suffix: nn.Module | None = None) -> Tensor:
        """Forward pass in the precision of the device; logits `float32` of shape (B, C).

        `suffix` takes the place of the one that is trained.
        """
        with self.device.autocast():
            return (suffix or self.suffix)(run_frozen(self.prefix, x)).float()

    def batch_loss(self, x: Tensor, y: Tensor, count: int) -> Tensor:
        """The training loss of a whole batch of `count` images, of which `x` and `y` are the rows of this process."""
        with self.device.autocast():
            features = run_frozen(self.prefix, x)
            with self.processes.on_batch(count), FastDepthwise():
                logits = self.suffix(features).float()
        return self.loss(self.processes.whole(logits, count), self.processes.whole(y, count))

    def step(self, x: Tensor, y: Tensor, count: int) -> Tensor:
        """Take a step on a whole batch of `count` images, of which `x` and `y` are those of this process; its loss."""
        loss = self.batch_loss(x, y, count)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.sum_gradients(self.suffix.parameters(), count)
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.suffix.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.schedule.after_batch()
        if self.averaged is not None:
            self.averaged.update_parameters(self.suffix)
        return loss.detach()


def train(training: Training, resume: State | None = None) -> TrainingResult:
    """Train until the epochs are done or patience runs out, and leave the suffix with its best weights.

    The weights that training begins with are validated too and take part: fine-tuning never ends worse than it began.
    With `resume`, continue after the epoch of that state and reach the weights of an uninterrupted training, bit for
    bit. The suffix has its best weights even if an exception ends the loop.

    Raises:
        CxrError: the loss is not finite (names epoch and step; best weights and checkpoint stay as they were), or
            `resume` belongs to another training.
    """
    t, settings = training, training.settings
    stopping = EarlyStopping(settings.patience, settings.min_delta, bool(t.metric.higher_is_better))
    t.prefix.eval().requires_grad_(False)
    if resume is not None:
        start, history, best_weights = resuming.restore(t, stopping, resume)
    else:
        start, history = validate(t, 0), []
        if not math.isfinite(start.val_loss):
            raise CxrError(f"the validation loss is {start.val_loss} before training; its weights are damaged")
        stopping.improved(start.val_metric, 0)
        best_weights = copy.deepcopy(t.suffix.state_dict())
        t.callbacks.on_start(start)
    try:
        for epoch in range(len(history) + 1, settings.epochs + 1):
            if stopping.over:
                break
            started = time.perf_counter()
            train_loss, lr = _epoch(t, epoch)
            train_seconds = time.perf_counter() - started
            scores = _raw_or_averaged(t, epoch, stopping)
            if not math.isfinite(scores.val_loss):
                raise CxrError(
                    f"the validation loss is {scores.val_loss} in epoch {epoch} (lr up to {lr:g}); "
                    "lower the learning rate"
                )
            record = Epoch(
                **asdict(scores),
                lr=lr,
                train_loss=train_loss,
                images_per_second=t.train.images / train_seconds,
                epoch_seconds=time.perf_counter() - started,
            )
            history.append(record)
            t.callbacks.on_epoch(record)
            t.schedule.after_epoch(record.val_loss)
            if stopping.improved(record.val_metric, epoch):
                better = t.averaged.module if record.averaged and t.averaged is not None else t.suffix
                best_weights = copy.deepcopy(better.state_dict())
                with _weights(t.suffix, best_weights if record.averaged else None):
                    t.callbacks.on_improved(record)
            if epoch % settings.checkpoint_interval == 0 or epoch == settings.epochs or stopping.over:
                t.callbacks.on_checkpoint(resuming.state(t, stopping, start, history, best_weights))
    finally:
        t.suffix.load_state_dict(best_weights)
        t.suffix.eval()
    best = history[stopping.best_epoch - 1] if stopping.best_epoch else start
    return TrainingResult(start, history, best, "patience" if stopping.over else "epochs")


def _epoch(t: Training, epoch: int) -> tuple[float, float]:
    """Take the steps of an epoch; the mean training loss of an image, and the highest learning rate."""
    torch.manual_seed(t.seed * 100_003 + epoch)  # dropout of an epoch does not depend on the epochs before
    set_train_mode(t.suffix, t.settings.batch_norm)
    # Sums stay on the device: reading a number would synchronise with it after every step.
    sums = widest_float(t.device.device)
    loss_sum = torch.zeros((), device=t.device.device, dtype=sums)
    first_bad_step = torch.zeros((), device=t.device.device, dtype=torch.int64)
    lr = 0.0
    for step, (count, x, y) in enumerate(_batches(t, epoch), start=1):
        lr = max(lr, *(float(group["lr"]) for group in t.optimizer.param_groups))
        with explaining_nondeterminism():
            loss = t.step(x, y, count)
        loss_sum += loss * count
        is_bad = (first_bad_step == 0) & ~torch.isfinite(loss)
        first_bad_step = torch.where(is_bad, step, first_bad_step)
    if first_bad_step:
        raise CxrError(
            f"the loss is not finite in epoch {epoch}, step {int(first_bad_step)} (lr up to {lr:g}, {t.device}); "
            "lower the learning rate or try precision=float32; the best weights so far are kept"
        )
    return loss_sum.item() / t.train.images, lr


def _raw_or_averaged(t: Training, epoch: int, stopping: EarlyStopping) -> Validation:
    """Validation after `epoch`, of the trained weights or of their average, whichever is better."""
    scores = validate(t, epoch)
    if t.averaged is None:
        return scores
    averaged = validate(t, epoch, t.averaged.module)
    return replace(averaged, averaged=True) if stopping.is_better(averaged.val_metric, scores.val_metric) else scores


@torch.no_grad()
def validate(t: Training, epoch: int, suffix: nn.Module | None = None) -> Validation:
    """Mean loss and metric over the validation split after `epoch`, of the trained suffix or of another one.

    With changed images, the metric is the mean of that of the whole split and those of each change; the loss stays that
    of the images as they are.
    """
    suffix = suffix or t.suffix
    suffix.eval()
    loss, clean = _scores(t, t.val, suffix)
    if not t.val_changed:
        return t.processes.from_first(Validation(epoch, loss, clean))
    changed = [_scores(t, loader, suffix)[1] for loader in t.val_changed]
    mean = statistics.fmean([clean, *changed])
    return t.processes.from_first(Validation(epoch, loss, mean, val_metric_clean=clean))


def _scores(t: Training, images: Loader, suffix: nn.Module) -> tuple[float, float]:
    """Mean loss and metric of some images."""
    t.metric.reset()
    losses, outputs, labels = [], [], []
    for count, (x, y) in zip(images.sizes(), images.epoch(0), strict=True):
        logits, y = t.processes.whole(t.logits(x, suffix), count), t.processes.whole(y, count)
        losses.append(t.val_loss(logits, y) * len(y))
        outputs.append(logits)
        labels.append(y)
    logits, y = torch.cat(outputs), torch.cat(labels)
    t.metric.update(logits.softmax(1), y)
    return torch.stack(losses).sum().item() / len(y), float(t.metric.compute())


@contextmanager
def _weights(module: nn.Module, state: State | None) -> Iterator[None]:
    """Lend other weights to a module; None leaves it its own."""
    if state is None:
        yield
        return
    own = copy.deepcopy(module.state_dict())
    module.load_state_dict(state)
    try:
        yield
    finally:
        module.load_state_dict(own)


def set_train_mode(suffix: nn.Module, batch_norm: str) -> None:
    """Put the suffix into training mode; with `batch_norm="frozen"`, batch norms keep their running statistics."""
    suffix.train()
    if batch_norm == "frozen":
        for module in suffix.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _batches(t: Training, epoch: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The batches of an epoch, each after the number of its images, with a progress bar on a terminal."""
    batches = tqdm(
        t.train.epoch(epoch),
        total=len(t.train),
        desc=f"epoch {epoch}/{t.settings.epochs}",
        unit="batch",
        leave=False,
        disable=not (sys.stderr.isatty() and t.processes.first),
    )
    for count, (x, y) in zip(t.train.sizes(), batches, strict=True):
        yield count, x, y
