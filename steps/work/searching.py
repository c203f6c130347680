"""The loop of a search: it begins trials, follows their trainings epoch by epoch, and ends those that fall behind.

Each trial runs its steps in a thread of its own, which only waits for their processes. Whatever is decided or kept is
decided and kept in the main thread.
"""

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import mlflow

from cxr.errors import CxrError
from cxr.search import space
from cxr.search.study import State, Study, Trial
from steps.runtime import process
from steps.runtime.context import Context
from steps.runtime.settings import OWNED, owner
from steps.work import launching, trials

POLL_S = 1.0
SEEN_S = 60.0
FAILURES = 5  # trials that have all failed, after which there is no point in more
STEPS = ("train", "finetune")


@dataclass
class _Running:
    """A trial at work: its thread, the run of its last training once that is there, and what is known of it."""

    number: int
    future: Future[str]
    training: str | None = None
    epochs: dict[int, float] = field(default_factory=dict)
    is_behind: bool = False
    seen: float = field(default_factory=time.monotonic)


class Search:
    """A search at work.

    Args:
        context: of the step.
        study: what proposes trials; it learns here what is known.
        done: runs that all trials start from, by step.
        shared: digests of what all trials of the study have in common, by name.
    """

    def __init__(self, context: Context, study: Study, done: dict[str, str], shared: dict[str, str]):
        self.context, self.study, self.done, self.shared = context, study, done, shared
        self.settings = context.settings.search
        self.known: list[Trial] = []
        self.running: dict[str, _Running] = {}
        self.started = time.monotonic()
        self.stopping = threading.Event()

    def run(self) -> None:
        """Run trials until there are as many as wanted, or no time is left for another.

        Raises:
            CxrError: the first trials have all failed.
        """
        with ThreadPoolExecutor(self.settings.workers) as pool:
            try:
                while self._begin(pool) or self.running:
                    ended = False
                    while self.running and not ended:
                        wait([one.future for one in self.running.values()], POLL_S, FIRST_COMPLETED)
                        ended = self._follow_all()
            finally:
                self._stop()

    def _begin(self, pool: ThreadPoolExecutor) -> bool:
        """Begin trials while there is room and need for more; returns whether any began."""
        before = len(self.running)
        while len(self.running) < self.settings.workers and self._another():
            proposal, number = self.study.ask(), len(self.known) + 1
            key = trials.begin(self.context, self.settings.study, number, proposal.values, self.shared)
            self.study.begin(key, proposal)
            tried = ", ".join(f"{name}={short(value)}" for name, value in proposal.values.items())
            self.context.log.info("trial %d: %s", number, tried)
            future = pool.submit(self._train, key, space.overrides(proposal.values))
            self.running[key] = _Running(number, future)
        return len(self.running) > before

    def _another(self) -> bool:
        """Whether to begin another trial; learns what other searches of the study have found by now."""
        self.known = trials.known(self.context, self.settings.study, self.known)
        for trial in self.known:
            self.study.learn(trial)
        counted = [trial for trial in self.known if trial.state != "interrupted"]
        failed = [trial for trial in counted if trial.state == "failed"]
        if len(failed) >= FAILURES and all(trial.state in ("failed", "running") for trial in counted):
            raise CxrError(all_failed(self.context, failed))
        hours = (time.monotonic() - self.started) / 3600
        return len(counted) < self.settings.trials and (self.settings.hours is None or hours < self.settings.hours)

    def _train(self, key: str, overrides: dict[str, str]) -> str:
        """Run the steps of a trial below its run; returns the run of the last. This is what a thread does."""
        done = dict(self.done)
        mlflow.start_run(run_id=key, log_system_metrics=False)  # the parent of what is launched in this thread
        try:
            for name in STEPS:
                if self.stopping.is_set():
                    raise CxrError("interrupted")
                if name not in done:
                    own = {setting: text for setting, text in overrides.items() if owner(setting) == name}
                    done[name] = launching.step(self.context, name, done, True, own)
        finally:
            mlflow.end_run("RUNNING")  # how it ended is for the main thread to say
        return done[STEPS[-1]]

    def _follow_all(self) -> bool:
        """Look after every trial at work; returns whether any has ended."""
        ended = False
        for key, one in list(self.running.items()):
            is_done = one.future.done()  # asked before its epochs are read, so that none is missed
            self._follow(key, one)
            if is_done:
                self._end(key, one)
                ended = True
                del self.running[key]
        return ended

    def _follow(self, key: str, one: _Running) -> None:
        """Take over the epochs that a trial's training has finished, and stop it where it falls behind."""
        if time.monotonic() - one.seen > SEEN_S:
            trials.seen(self.context, key)
            one.seen = time.monotonic()
        if one.future.done() and one.future.exception() is None:
            one.training = one.future.result()  # too fast to be seen at work, or reused
        elif one.training is None:
            one.training = trials.training(self.context, key, STEPS[-1])
        if one.training is None:
            return
        for epoch, score in trials.epochs(self.context.client, one.training).items():
            if epoch in one.epochs:
                continue
            one.epochs[epoch] = score
            trials.log_epoch(self.context, key, epoch, score)
            if self.study.report(key, epoch, score) and not one.is_behind and not one.future.done():
                one.is_behind = True
                process.stop(self.context.client.get_run(one.training).data.tags["cxr.process"])

    def _end(self, key: str, one: _Running) -> None:
        """Note how a trial ended."""
        state: State = "failed"
        score: float | None = None
        try:
            found = self.context.client.get_run(one.future.result()).data.metrics["best_val_metric"]
            told = f"validation metric {found:.4f}"
            if trials.is_finite(found):
                state, score = "complete", found
        except CxrError as error:
            told = str(error)
            if one.is_behind:
                state, told = "pruned", f"after epoch {max(one.epochs)}, worse than the median of the others"
        trials.end(self.context, key, state, score, told if state == "failed" else None)
        self.study.end(key, state, score)
        self.context.log.info("trial %d: %s, %s", one.number, state, told)

    def _stop(self) -> None:
        """End what is still at work: the search was interrupted, or has failed."""
        self.stopping.set()
        while not all(one.future.done() for one in self.running.values()):
            process.stop_children()
            wait([one.future for one in self.running.values()], POLL_S)
        for key in self.running:
            trials.end(self.context, key, "interrupted")
        self.running.clear()


def changes(space_names: list[str]) -> str:
    """The first step that a space with these settings changes."""
    return min((owner(name) or STEPS[-1] for name in space_names), key=list(OWNED).index)


def all_failed(context: Context, failed: list[Trial]) -> str:
    """The error of a study whose trials have all failed."""
    reason = context.client.get_run(failed[-1].key).data.tags.get("cxr.error", "no message")
    study = context.settings.search.study
    what = "the only trial" if len(failed) == 1 else f"all {len(failed)} trials"
    last = "" if len(failed) == 1 else "; the last one"
    return (
        f"{what} of the study {study!r} failed{last}: {reason}; once that is mended, "
        "give the search another name: -P study=NAME"
    )


def short(value: object) -> str:
    """A value of a setting, for people."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
