"""Engine `spark` of `search`: trials on the workers of a Spark cluster, by MLflow's `MlflowSparkStudy`.

What Optuna knows is in the MLflow store, where every worker reads and writes it: a run `study NAME` below that of the
search, and a run for each trial below it, which is tagged as a trial of this machine is. Spark is an extra:
`pip install -r requirements-spark.txt -r requirements-search.txt`, and Java 17. Workers must see this project, the data
and the cache under the same paths as this machine, have its packages, and reach the store.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Run, ViewType
from mlflow.exceptions import ExecutionException

from cxr.common import spark
from cxr.errors import CxrError
from cxr.search import study
from cxr.settings import load
from steps.runtime import outage, process, scratch
from steps.runtime.cli import Step
from steps.runtime.context import Context
from steps.runtime.settings import PARAMS
from steps.work import trials
from steps.work.searching import FAILURES, listed, wanted
from steps.work.trial_work import POLL_S, TrialWork

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

_OTHERS = logging.getLogger("mlflow.pyspark.optuna.study")


def run(context: Context, done: dict[str, str], shared: dict[str, str], *, maximise: bool, seed: int) -> None:
    """Let the workers run the trials that the study still needs; arguments as of `steps.work.searching.Search`.

    Raises:
        CxrError: the first trials have all failed, or Spark has.
    """
    from mlflow.optuna.storage import MlflowStorage
    from mlflow.pyspark.optuna.study import MlflowSparkStudy

    search = context.settings.search
    session = spark.session("cxr-search")
    still = wanted(context, trials.known(context, search.study))
    if still <= 0:
        return
    _OTHERS.setLevel(logging.WARNING)  # it tells the bare numbers of what the log tells in words
    shared_study = MlflowSparkStudy(
        f"study {search.study}",  # a run of any step may have the name of the study
        MlflowStorage(context.experiment_id),
        study.sampler(search, seed),
        study.pruner(search),
        direction=study.direction(maximise),
    )
    run_id = str(shared_study._study_id)
    for name, value in {"mlflow.parentRunId": context.run_id, "cxr.process": process.identity()}.items():
        context.client.set_tag(run_id, name, value)
    workers = min(search.workers, still)
    context.log.info("%s on Spark, %d at once", study.counted(still), workers)
    try:
        with spark.in_one_line():
            shared_study.optimize(
                _objective(context, done, shared),
                n_trials=still,
                timeout=None if search.hours is None else search.hours * 3600,
                n_jobs=workers,
                catch=(RuntimeError,),
                callbacks=[_enough(FAILURES)],
            )
    except ExecutionException as error:
        raise CxrError(f"Spark failed: {str(error).strip().splitlines()[-1]}") from None
    finally:
        session.sparkContext.cancelAllJobs()
        _give_up(context, run_id)


def _objective(context: Context, done: dict[str, str], shared: dict[str, str]) -> "Callable[[Trial], float]":
    """The function that a worker calls for each trial.

    It is defined here so that it is pickled by value, with plain values alone: a worker can import this project only
    once it has been told where it is.
    """
    project, folder = str(PARAMS.parent), str(Path.cwd())
    own = {
        "settings": context.settings.to_dict(),
        "flags": dict(context.flags),
        "overrides": dict(context.overrides),
        "run_id": context.run_id,
        "experiment_id": context.experiment_id,
    }

    def objective(trial: "Trial") -> float:
        os.chdir(folder)  # of relative paths
        if project not in sys.path:
            sys.path.insert(0, project)
        from steps.work.search_spark import try_out

        return try_out(trial, own, done, shared)

    return objective


def _enough(failures: int) -> "Callable[[optuna.Study, FrozenTrial], None]":
    """A callback of Optuna: no more trials begin on this worker once so many have failed and no other has ended."""

    def check(within: "optuna.Study", trial: "FrozenTrial") -> None:
        if trial.state.name == "FAIL":
            ended = [one.state.name for one in within.get_trials(deepcopy=False) if one.state.is_finished()]
            if len(ended) >= failures and set(ended) == {"FAIL"}:
                within.stop()

    return check


def try_out(trial: "Trial", own: dict[str, Any], done: dict[str, str], shared: dict[str, str]) -> float:
    """Run a trial on this worker; returns its score. `own` is of the search's context.

    Raises:
        RuntimeError: the trial failed.
        optuna.TrialPruned: it fell behind.
    """
    with scratch.folder("search") as folder:
        context = Context(
            step=Step(name="search", about="A trial of a search."),
            flags=own["flags"],
            overrides=own["overrides"],
            run_id=own["run_id"],
            experiment_id=own["experiment_id"],
            client=outage.patient(mlflow.MlflowClient()),
            folder=folder,
            log=logging.getLogger("steps.search"),
        )
        context.settings = load.resolve(own["settings"], {})
        return _tried(trial, context, done, shared)


def _tried(trial: "Trial", context: Context, done: dict[str, str], shared: dict[str, str]) -> float:
    """The score of a trial, which is followed until its steps have ended."""
    key = str(trial._trial_id)  # MLflow's storage takes the ID of the run
    values = {name: study.suggest(trial, name, domain) for name, domain in context.settings.search.space.items()}
    number = _number(context, str(trial.study._study_id), key)
    context.log.info("trial %d: %s", number, listed(values))
    trials.adopt(context, key, number, values, shared)

    def report(epoch: int, score: float) -> bool:
        trial.report(score, epoch)
        return trial.should_prune()

    stopping = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        work = TrialWork(context, key, values, done, pool, stopping)
        try:
            is_done = False
            while not is_done:
                wait([work.future], POLL_S)
                is_done = work.future.done()
                work.follow(report)
        finally:
            stopping.set()
            if not work.future.done():
                process.stop_children()
    state, score, told = work.outcome()
    trials.note(context, key, state, score, told if state == "failed" else None)  # Optuna closes the run
    context.log.info("trial %d: %s, %s", number, state, told)
    if state == "pruned":
        raise study.library().TrialPruned(told)
    if score is None:
        raise RuntimeError(told)
    return score


def _give_up(context: Context, study_run: str) -> None:
    """Mark trials of this search as interrupted that are still at work: it was interrupted, or has failed."""
    for run in _below(context, study_run):
        if run.info.status == "RUNNING":
            trials.end(context, run.info.run_id, "interrupted")
    context.client.set_terminated(study_run)


def _number(context: Context, study_run: str, key: str) -> int:
    """The number of a trial by when it began. Optuna's comes from an unordered history, and is not unique."""
    begun = [run.info.run_id for run in _below(context, study_run)]
    return begun.index(key) + 1


def _below(context: Context, study_run: str) -> list[Run]:
    """The runs of a study's trials, the first begun first."""
    query, order = f"tags.`mlflow.parentRunId` = '{study_run}'", ["attributes.start_time ASC"]
    return list(context.client.search_runs([context.experiment_id], query, ViewType.ACTIVE_ONLY, 10_000, order))
