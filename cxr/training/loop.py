"""The training loop: epochs of batches, validation, early stopping, and checkpoints to resume from.

The network is a frozen prefix and a trainable suffix, whether the suffix is a new head, the last blocks or the whole
network. Only the suffix changes, so its weights are all that is checkpointed and compared.
"""

import copy
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric
from tqdm import tqdm

from cxr.errors import CxrError
from cxr.loading.batches import Loader
from cxr.models.device import Device, random_states, restore_random_states
from cxr.models.freezing import run_frozen
from cxr.settings.schema import TrainingSettings
from cxr.training.early_stopping import EarlyStopping

log = logging.getLogger(__name__)
State = dict[str, Any]


@dataclass(frozen=True)
class Validation:
    """Scores of the validation split after an epoch, or before the first one (epoch 0); the loss is a mean."""

    epoch: int
    val_loss: float
    val_metric: float


@dataclass(frozen=True, kw_only=True)
class Epoch(Validation):
    """The results of one epoch. Losses are means over images; the metric is that of the whole validation split."""

    lr: float
    train_loss: float
    images_per_second: float
    epoch_seconds: float

    def values(self) -> dict[str, float]:
        """All values but the number of the epoch, by name."""
        return {name: value for name, value in asdict(self).items() if name != "epoch"}


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        start: the validation scores of the weights that training began with.
        history: the epochs.
        best: the epoch whose weights the suffix has now; `start` if none was better.
        stopped: "epochs" or "patience".
    """

    start: Validation
    history: list[Epoch]
    best: Validation
    stopped: str


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

    `loss` may weight classes, `val_loss` must not; both take (logits, labels). `fingerprint` must equal that of a
    checkpoint to resume from it.
    """

    prefix: nn.Module
    suffix: nn.Module
    train: Loader
    val: Loader
    loss: nn.Module
    val_loss: nn.Module
    metric: Metric
    optimizer: torch.optim.Optimizer
    scheduler: Any
    settings: TrainingSettings
    device: Device
    seed: int
    fingerprint: dict[str, str]
    callbacks: Callbacks = field(default_factory=Callbacks)

    def logits(self, x: Tensor) -> Tensor:
        """Forward pass in the precision of the device; logits `float32` of shape (B, C)."""
        with self.device.autocast():
            return self.suffix(run_frozen(self.prefix, x)).float()


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
        start, history, best_weights = _restore(t, stopping, resume)
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
            torch.manual_seed(t.seed * 100_003 + epoch)  # dropout of an epoch does not depend on the epochs before
            started = time.perf_counter()
            lr = t.optimizer.param_groups[0]["lr"]

            set_train_mode(t.suffix, t.settings.batch_norm)
            # Sums stay on the device: reading a number would synchronise with it after every step.
            sums = torch.float32 if t.device.device.type == "mps" else torch.float64
            loss_sum = torch.zeros((), device=t.device.device, dtype=sums)
            first_bad_step = torch.zeros((), device=t.device.device, dtype=torch.int64)
            for step, (x, y) in enumerate(_progress(t.train, epoch, settings.epochs), start=1):
                loss = t.loss(t.logits(x), y)
                t.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                t.optimizer.step()
                loss_sum += loss.detach() * len(y)
                is_bad = (first_bad_step == 0) & ~torch.isfinite(loss.detach())
                first_bad_step = torch.where(is_bad, step, first_bad_step)
            if first_bad_step:
                raise CxrError(
                    f"the loss is not finite in epoch {epoch}, step {int(first_bad_step)} (lr {lr:g}, {t.device}); "
                    "lower the learning rate or try precision=float32; the best weights so far are kept"
                )
            train_loss = loss_sum.item() / t.train.images
            train_seconds = time.perf_counter() - started

            scores = validate(t, epoch)
            if not math.isfinite(scores.val_loss):
                raise CxrError(
                    f"the validation loss is {scores.val_loss} in epoch {epoch} (lr {lr:g}); lower the learning rate"
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
            _step_scheduler(t.scheduler, record)
            if stopping.improved(record.val_metric, epoch):
                best_weights = copy.deepcopy(t.suffix.state_dict())
                t.callbacks.on_improved(record)
            if epoch % settings.checkpoint_interval == 0 or epoch == settings.epochs or stopping.over:
                t.callbacks.on_checkpoint(_state(t, stopping, start, history, best_weights))
    finally:
        t.suffix.load_state_dict(best_weights)
        t.suffix.eval()
    best = history[stopping.best_epoch - 1] if stopping.best_epoch else start
    return TrainingResult(start, history, best, "patience" if stopping.over else "epochs")


@torch.no_grad()
def validate(t: Training, epoch: int) -> Validation:
    """Mean loss and metric over the validation split, after `epoch`."""
    t.suffix.eval()
    t.metric.reset()
    losses, outputs, labels = [], [], []
    for x, y in t.val.epoch(0):
        logits = t.logits(x)
        losses.append(t.val_loss(logits, y) * len(y))
        outputs.append(logits)
        labels.append(y)
    logits, y = torch.cat(outputs), torch.cat(labels)
    t.metric.update(logits.softmax(1), y)
    return Validation(epoch, torch.stack(losses).sum().item() / len(y), float(t.metric.compute()))


def set_train_mode(suffix: nn.Module, batch_norm: str) -> None:
    """Put the suffix into training mode; with `batch_norm="frozen"`, batch norms keep their running statistics."""
    suffix.train()
    if batch_norm == "frozen":
        for module in suffix.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _progress(loader: Loader, epoch: int, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch, with a progress bar on a terminal."""
    return tqdm(
        loader.epoch(epoch),
        total=len(loader),
        desc=f"epoch {epoch}/{epochs}",
        unit="batch",
        leave=False,
        disable=not sys.stderr.isatty(),
    )


def _step_scheduler(scheduler: Any, record: Epoch) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(record.val_loss)
    elif scheduler is not None:
        scheduler.step()


def _state(t: Training, stopping: EarlyStopping, start: Validation, history: list[Epoch], best_weights: State) -> State:
    return {
        "epoch": history[-1].epoch,
        "suffix": t.suffix.state_dict(),
        "best": best_weights,
        "optimizer": t.optimizer.state_dict(),
        "scheduler": t.scheduler.state_dict() if t.scheduler is not None else None,
        "stopping": asdict(stopping),
        "start": asdict(start),
        "history": [asdict(record) for record in history],
        "random": random_states(),
        "fingerprint": t.fingerprint,
    }


def _restore(t: Training, stopping: EarlyStopping, state: State) -> tuple[Validation, list[Epoch], State]:
    """Put a training back to where `state` was taken; a state of another training raises `CxrError`."""
    saved = state.get("fingerprint", {})
    differing = [f"{k} ({saved.get(k)} then, {v} now)" for k, v in t.fingerprint.items() if saved.get(k) != v]
    if differing:
        raise CxrError(
            f"the checkpoint is of another training: {', '.join(differing)}; train from scratch, without resume"
        )
    try:
        t.suffix.load_state_dict(state["suffix"])
        t.optimizer.load_state_dict(state["optimizer"])
        if t.scheduler is not None:
            t.scheduler.load_state_dict(state["scheduler"])
        for name in ("best", "best_epoch", "waited"):
            setattr(stopping, name, state["stopping"][name])
        restore_random_states(state["random"])
        history = [Epoch(**record) for record in state["history"]]
        return Validation(**state["start"]), history, state["best"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise CxrError(
            f"the checkpoint does not fit this training ({line}); train from scratch, without resume"
        ) from None
