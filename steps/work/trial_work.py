"""A trial at work: a thread runs its steps, and its training is followed epoch by epoch and ended if it falls behind.

The thread only waits for the processes of the steps. Whatever is decided or kept is decided and kept by its owner.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor

import mlflow

from cxr.errors import CxrError
from cxr.search import space
from cxr.search.study import State
from steps.runtime import process
from steps.runtime.context import Context
from steps.runtime.settings import owner
from steps.work import launching, trials

POLL_S = 1.0
STEPS = ("train", "finetune")
_SEEN_S = 60.0


class TrialWork:
    """A trial at work, from its first step on.

    Args:
        context: of the search.
        key: ID of the trial's run.
        values: settings that it tries, by full name.
        done: runs that all trials start from, by step.
        pool: has a thread for its steps.
        stopping: once set, no further step begins.
    """

    def __init__(
        self,
        context: Context,
        key: str,
        values: dict[str, object],
        done: dict[str, str],
        pool: Executor,
        stopping: threading.Event,
    ):
        self.context, self.key = context, key
        self.epochs: dict[int, float] = {}
        self._training: str | None = None  # run of the last step, once it is there
        self._is_behind = False
        self._seen = time.monotonic()
        self.future = pool.submit(_run_steps, context, key, space.overrides(values), dict(done), stopping)

    def follow(self, report: Callable[[int, float], bool]) -> None:
        """Take over the epochs that the training has finished, and stop it where `report(epoch, score)` says so."""
        if time.monotonic() - self._seen > _SEEN_S:
            trials.seen(self.context, self.key)
            self._seen = time.monotonic()
        if self.future.done() and self.future.exception() is None:
            self._training = self.future.result()  # too fast to be seen at work, or reused
        elif self._training is None:
            self._training = trials.training(self.context, self.key, STEPS[-1])
        if self._training is None:
            return
        for epoch, score in trials.epochs(self.context.client, self._training).items():
            if epoch in self.epochs:
                continue
            self.epochs[epoch] = score
            trials.log_epoch(self.context, self.key, epoch, score)
            if report(epoch, score) and not self._is_behind and not self.future.done():
                self._is_behind = True
                process.stop(self.context.client.get_run(self._training).data.tags["cxr.process"])

    def outcome(self) -> tuple[State, float | None, str]:
        """How the trial, whose steps have ended, did: its state, its score if it has one, and a line about it."""
        state: State = "failed"
        score: float | None = None
        try:
            found = self.context.client.get_run(self.future.result()).data.metrics["best_val_metric"]
            told = f"validation metric {found:.4f}"
            if trials.is_finite(found):
                state, score = "complete", found
        except CxrError as error:
            told = str(error)
            if self._is_behind:
                state, told = "pruned", f"after epoch {max(self.epochs)}, worse than the median of the others"
        return state, score, told


def _run_steps(
    context: Context, key: str, overrides: dict[str, str], done: dict[str, str], stopping: threading.Event
) -> str:
    """Run the steps of a trial below its run; returns the run of the last. This is what a thread does."""
    mlflow.start_run(run_id=key, log_system_metrics=False)  # the parent of what is launched in this thread
    try:
        for name in STEPS:
            if stopping.is_set():
                raise CxrError("interrupted")
            if name not in done:
                own = {setting: text for setting, text in overrides.items() if owner(setting) == name}
                done[name] = launching.step(context, name, done, True, own)
    finally:
        mlflow.end_run("RUNNING")  # how it ended is for the owner to say
    return done[STEPS[-1]]
