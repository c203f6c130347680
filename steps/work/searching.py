"""The loop of a search on this machine: it begins trials, and follows each until it ends."""

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial

from cxr.errors import CxrError
from cxr.search.study import Study, Trial
from steps.runtime import process
from steps.runtime.context import Context
from steps.runtime.settings import OWNED, owner
from steps.work import trials
from steps.work.trial_work import POLL_S, STEPS, TrialWork

FAILURES = 5  # trials that have all failed, after which there is no point in more


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
        self.running: dict[str, tuple[int, TrialWork]] = {}  # with their numbers
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
                        wait(self._futures(), POLL_S, FIRST_COMPLETED)
                        ended = self._follow_all()
            finally:
                self._stop()

    def _begin(self, pool: ThreadPoolExecutor) -> bool:
        """Begin trials while there is room and need for more; returns whether any began."""
        before = len(self.running)
        while len(self.running) < self.settings.workers and self._another():
            proposal, number = self.study.ask(), len(self.known) + 1
            key = trials.begin(self.context, number, proposal.values, self.shared)
            self.study.begin(key, proposal)
            self.context.log.info("trial %d: %s", number, listed(proposal.values))
            work = TrialWork(self.context, key, proposal.values, self.done, pool, self.stopping)
            self.running[key] = (number, work)
        return len(self.running) > before

    def _another(self) -> bool:
        """Whether to begin another trial; learns what other searches of the study have found by now."""
        self.known = trials.known(self.context, self.settings.study, self.known)
        for trial in self.known:
            self.study.learn(trial)
        still = wanted(self.context, self.known)
        hours = (time.monotonic() - self.started) / 3600
        return still > 0 and (self.settings.hours is None or hours < self.settings.hours)

    def _follow_all(self) -> bool:
        """Look after every trial at work; returns whether any has ended."""
        ended = False
        for key, (number, work) in list(self.running.items()):
            is_done = work.future.done()  # asked before its epochs are read, so that none is missed
            work.follow(partial(self.study.report, key))
            if is_done:
                state, score, told = work.outcome()
                trials.end(self.context, key, state, score, told if state == "failed" else None)
                self.study.end(key, state, score)
                self.context.log.info("trial %d: %s, %s", number, state, told)
                ended = True
                del self.running[key]
        return ended

    def _futures(self) -> list[Future[str]]:
        return [work.future for _, work in self.running.values()]

    def _stop(self) -> None:
        """End what is still at work: the search was interrupted, or has failed."""
        self.stopping.set()
        while not all(future.done() for future in self._futures()):
            process.stop_children()
            wait(self._futures(), POLL_S)
        for key in self.running:
            trials.end(self.context, key, "interrupted")
        self.running.clear()


def wanted(context: Context, known: list[Trial]) -> int:
    """How many more trials a study needs; those that were given up are replaced.

    Raises:
        CxrError: the first trials have all failed.
    """
    counted = [trial for trial in known if trial.state != "interrupted"]
    failed = [trial for trial in counted if trial.state == "failed"]
    if len(failed) >= FAILURES and all(trial.state in ("failed", "running") for trial in counted):
        raise CxrError(all_failed(context, failed))
    return context.settings.search.trials - len(counted)


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


def listed(values: dict[str, object]) -> str:
    """Settings and their values, for people."""
    return ", ".join(f"{name}={short(value)}" for name, value in values.items())


def short(value: object) -> str:
    """A value of a setting, for people."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
