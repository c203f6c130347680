"""The training loop: a frozen prefix, a suffix that learns, early stopping, and a state to go on from.

Used for a new head on a frozen backbone and for the last blocks trained on: both are a prefix and a suffix. The
suffix's weights are the only ones that change, so they are all that is kept and compared.
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
from cxr.models.freezing import frozen
from cxr.settings.schema import TrainingSettings

log = logging.getLogger("cxr.training.loop")
State = dict[str, Any]


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to. Losses are means over images; the metric is that of the whole validation part."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_metric: float
    images_per_second: float
    epoch_seconds: float

    def values(self) -> dict[str, float]:
        """All but the number of the epoch, by name."""
        return {name: value for name, value in asdict(self).items() if name != "epoch"}


@dataclass
class EarlyStopping:
    """Counts epochs without an improvement of more than `min_delta`; `patience` of them end the training."""

    patience: int
    min_delta: float
    higher_is_better: bool
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0

    def improved(self, score: float, epoch: int) -> bool:
        """Take in the score of an epoch; True where it is the best so far."""
        gain = math.inf if self.best is None else (score - self.best) * (1 if self.higher_is_better else -1)
        if gain > self.min_delta:
            self.best, self.best_epoch, self.waited = score, epoch, 0
            return True
        self.waited += 1
        return False

    @property
    def over(self) -> bool:
        return self.waited >= self.patience


@dataclass(frozen=True)
class FitResult:
    """How a training ended; `best` is the epoch whose weights the suffix has now."""

    best: Epoch
    history: list[Epoch]
    stopped: str


def _nothing(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Callbacks:
    """What happens outside: after every epoch, after every improvement (the suffix then has the best weights), and
    with a state that `resume` takes, every `checkpoint_interval` epochs and at the end."""

    on_epoch: Callable[[Epoch], None] = _nothing
    on_improved: Callable[[Epoch], None] = _nothing
    on_checkpoint: Callable[[State], None] = _nothing


@dataclass(kw_only=True)
class Training:
    """All that an engine run works on. `loss` may weigh classes, `val_loss` must not; both take (logits, labels)."""

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


def fit(training: Training, resume: State | None = None) -> FitResult:
    """Train until the epochs are done or patience is out; however it ends, the suffix then has the weights of its
    best epoch.

    A loss that is not finite raises `CxrError` with epoch and step; checkpoint and best weights stay those of
    before. `resume` goes on after the epoch of that state, to the very weights an unbroken training reaches.
    """
    t, settings = training, training.settings
    stopping = EarlyStopping(settings.patience, settings.min_delta, bool(t.metric.higher_is_better))
    history: list[Epoch] = []
    best: State = {}
    if resume is not None:
        history, best = _restore(t, stopping, resume)
    t.prefix.eval().requires_grad_(False)
    try:
        for epoch in range(len(history) + 1, settings.epochs + 1):
            if stopping.over:
                break
            torch.manual_seed(t.seed * 100_003 + epoch)  # dropout of an epoch does not depend on the epochs before
            record = _one_epoch(t, epoch)
            history.append(record)
            t.callbacks.on_epoch(record)
            _step_scheduler(t.scheduler, record)
            if stopping.improved(record.val_metric, epoch):
                best = copy.deepcopy(t.suffix.state_dict())
                t.callbacks.on_improved(record)
            if epoch % settings.checkpoint_interval == 0 or epoch == settings.epochs or stopping.over:
                t.callbacks.on_checkpoint(_state(t, stopping, history, best))
    finally:
        if best:
            t.suffix.load_state_dict(best)
        t.suffix.eval()
    stopped = "patience" if stopping.over else "epochs"
    return FitResult(history[stopping.best_epoch - 1], history, stopped)


def _one_epoch(t: Training, epoch: int) -> Epoch:
    started = time.perf_counter()
    lr = t.optimizer.param_groups[0]["lr"]
    train_loss, bad_step = train_epoch(t, epoch)
    if bad_step:
        raise CxrError(
            f"the loss is not finite in epoch {epoch}, step {bad_step} (lr {lr:g}, {t.device}); lower the "
            "learning rate, or try precision=float32; the best weights before are kept"
        )
    trained = time.perf_counter() - started
    val_loss, val_metric = evaluate(t)
    if not math.isfinite(val_loss):
        raise CxrError(f"the validation loss is {val_loss} in epoch {epoch} (lr {lr:g}); lower the learning rate")
    seconds = time.perf_counter() - started
    return Epoch(epoch, lr, train_loss, val_loss, val_metric, t.train.images / trained, seconds)


def train_epoch(t: Training, epoch: int) -> tuple[float, int]:
    """One pass over the training part: mean loss, and the first step whose loss was not finite (0: none)."""
    _train_mode(t.suffix, t.settings.batch_norm)
    # Sums stay on the device: asking for a number would stop it after every step.
    total = torch.zeros((), device=t.device.device, dtype=torch.float64 if t.device.device.type != "mps" else None)
    bad = torch.zeros((), device=t.device.device, dtype=torch.int64)
    for step, (x, y) in enumerate(_bar(t.train, epoch, t.settings.epochs), start=1):
        logits = _forward(t, x)
        loss = t.loss(logits, y)
        t.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        t.optimizer.step()
        total += loss.detach() * len(y)
        bad = torch.where((bad == 0) & ~torch.isfinite(loss.detach()), step, bad)
    return total.item() / t.train.images, int(bad.item())


def _train_mode(suffix: nn.Module, batch_norm: str) -> None:
    """Training mode, but for batch norms whose statistics are to stay as they are."""
    suffix.train()
    if batch_norm == "frozen":
        for module in suffix.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


@torch.no_grad()
def evaluate(t: Training) -> tuple[float, float]:
    """Mean loss and metric over the validation part."""
    t.suffix.eval()
    t.metric.reset()
    losses, labels = [], []
    outputs = []
    for x, y in t.val.epoch(0):
        logits = _forward(t, x)
        losses.append(t.val_loss(logits, y) * len(y))
        outputs.append(logits)
        labels.append(y)
    logits, y = torch.cat(outputs), torch.cat(labels)
    t.metric.update(logits.softmax(1), y)
    return torch.stack(losses).sum().item() / len(y), float(t.metric.compute())


def _forward(t: Training, x: Tensor) -> Tensor:
    """Logits `float32` of shape (B, C)."""
    with t.device.autocast():
        return t.suffix(frozen(t.prefix, x)).float()


def _bar(batches: Loader, epoch: int, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, with a progress bar where a person is watching."""
    return tqdm(
        batches.epoch(epoch),
        total=len(batches),
        desc=f"epoch {epoch}/{epochs}",
        unit="batch",
        leave=False,
        disable=not sys.stderr.isatty(),
    )


def _step_scheduler(scheduler: Any, record: Epoch) -> None:
    if scheduler is None:
        return
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(record.val_loss)
    else:
        scheduler.step()


def _state(t: Training, stopping: EarlyStopping, history: list[Epoch], best: State) -> State:
    return {
        "epoch": history[-1].epoch,
        "suffix": t.suffix.state_dict(),
        "best": best,
        "optimizer": t.optimizer.state_dict(),
        "scheduler": t.scheduler.state_dict() if t.scheduler is not None else None,
        "stopping": asdict(stopping),
        "history": [asdict(record) for record in history],
        "random": random_states(),
        "fingerprint": t.fingerprint,
    }


def _restore(t: Training, stopping: EarlyStopping, state: State) -> tuple[list[Epoch], State]:
    """Put a training back to where `state` was taken; a state of another training raises `CxrError`."""
    then = state.get("fingerprint", {})
    other = [f"{k} ({then.get(k)} then, {v} now)" for k, v in t.fingerprint.items() if then.get(k) != v]
    if other:
        raise CxrError(f"the checkpoint is of another training: {', '.join(other)}; train anew, without resume")
    try:
        t.suffix.load_state_dict(state["suffix"])
        t.optimizer.load_state_dict(state["optimizer"])
        if t.scheduler is not None:
            t.scheduler.load_state_dict(state["scheduler"])
        for name in ("best", "best_epoch", "waited"):
            setattr(stopping, name, state["stopping"][name])
        restore_random_states(state["random"])
        return [Epoch(**record) for record in state["history"]], state["best"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise CxrError(f"the checkpoint does not fit this training ({line}); train anew, without resume") from None
