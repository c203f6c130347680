"""Run a step from its command line to its exit status: MLflow run, settings, logs, and cleanup.

A step is a `Step` in `steps/NAME.py`, which calls `main(STEP)`, and a function `run(context)` in
`steps/work/NAME.py`.
"""

import logging
import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.common import remote, share
from cxr.errors import CxrError, LostError
from steps.runtime import disks, process, scratch, supervisor
from steps.runtime.cli import Arguments, Step, parse
from steps.runtime.context import Context

_STOPPED_S = 60.0  # after which one of several processes that cannot stop, since it waits for the others, is ended

if TYPE_CHECKING:  # mlflow takes seconds to import, and `--help` does without it
    from mlflow import MlflowClient
    from mlflow.entities import Run


def main(step: Step, argv: list[str] | None = None) -> None:
    """Run a step and exit: 0 if it finished, 1 if it failed, 130 if it was interrupted.

    Of several processes that do the step together, one that ends because another did exits with `supervisor.LOST`.
    """
    argv = sys.argv[1:] if argv is None else argv
    several = False
    try:
        arguments = parse(step, argv)
        own = share.from_environment()
        several = own.several
        process.stop_on_signals()
        if "MLFLOW_RUN_ID" in os.environ:
            process.stop_with_starter(_STOPPED_S if several else None)
        code = _several(step, arguments, own) if several else _alone(step, arguments, argv)
    except CxrError as error:
        code = _failed(step, error)
    except KeyboardInterrupt:
        code = 130
    if several and code:  # connections to others that are gone would hold it up
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _alone(step: Step, arguments: Arguments, argv: list[str]) -> int:
    """Do the step in this process, or start several that do it together; returns the exit status."""
    if step.parallel and "RANK" not in os.environ:
        count = import_module("steps.work.processes").wanted(arguments)
        if count > 1:
            return supervisor.supervise(step, arguments, argv, count)
    return _in_run(step, arguments)


def _several(step: Step, arguments: Arguments, own: share.Share) -> int:
    """Do the part of this process, one of several that were started; the first has the run and the logs."""
    if not step.parallel:
        raise CxrError(
            f"{step.name} works in one process, and WORLD_SIZE is {own.world}; start it once, not by torchrun"
        )
    if supervisor.asked(arguments.flags) is not None and share.SUPERVISED not in os.environ:
        raise CxrError(
            f"processes={arguments.flags['processes']} is given, and WORLD_SIZE={own.world} processes are started "
            "already; leave it out"
        )
    if own.first:
        return _in_run(step, arguments)
    logging.getLogger().addHandler(logging.NullHandler())
    logging.captureWarnings(True)
    return import_module("steps.work.processes").take_part()


def _in_run(step: Step, arguments: Arguments) -> int:
    """Open a run, do the step's work in it, and close it; returns the exit status."""
    from steps.runtime import logs, outage, store

    logs.open_console()
    store.quiet()
    run, status, code, context = store.open_run(step), "FAILED", 1, None
    client = outage.patient_client()
    log = logging.getLogger(f"steps.{step.name}")
    try:
        scratch.remove_abandoned()
        with scratch.folder(step.name) as folder:
            context = Context(
                step=step,
                flags=arguments.flags,
                overrides=arguments.overrides,
                run_id=run.info.run_id,
                experiment_id=run.info.experiment_id,
                client=client,
                folder=folder,
                log=log,
            )
            status, code = _work(context, arguments)
    except CxrError as error:  # no scratch folder
        _report(log, client, run.info.run_id, error)
    finally:
        code = _end(log, client, run, context, status) or code
        logs.close_logs()
    return code


def _work(context: Context, arguments: Arguments) -> tuple[str, int]:
    """Resolve settings, open the logs and do the step's work; returns the status of the run and the exit status."""
    from steps.runtime import logs, runs
    from steps.runtime.settings import settings_for

    name = context.step.name
    try:
        context.tag("cxr.process", process.identity())
        runs.mark_abandoned(context.client, context.experiment_id)
        context.settings = settings_for(context, arguments)
        logs.open_logs(name, context.run_id, Path(context.settings.log_dir), context.folder / "logs")
        context.put_text(context.settings.to_yaml(), "settings.yaml")
        # Imported only now, by name: it imports torch and mlflow, which `--help` does without.
        import_module(f"steps.work.{name}").run(context)
        logs.check()
        return "FINISHED", 0
    except KeyboardInterrupt:
        return _interrupted(context)
    except Exception as error:
        if process.hides_interrupt(error):
            return _interrupted(context)
        if isinstance(error, LostError) and not error.known and share.SUPERVISED in os.environ:
            return "FAILED", supervisor.LOST
        _report(context.log, context.client, context.run_id, _user_error(context, error) or error)
        return "FAILED", 1
    finally:
        if retries := remote.take_retries():
            context.log.warning(
                "requests to remote storage were tried again %d times; the network is unsteady, or the store is busy",
                retries,
            )
        _log_logs(context)


def _interrupted(context: Context) -> tuple[str, int]:
    """Say that a signal has ended the step; returns the status of the run and the exit status."""
    from steps.runtime import logs

    logs.no_longer_stop()
    if share.SUPERVISED not in os.environ:
        context.log.warning("interrupted; finished work is kept")
    return "KILLED", 130


def _user_error(context: Context, error: Exception) -> CxrError | None:
    """The error as one that the user can correct; None for a bug."""
    from mlflow import get_tracking_uri

    from steps.runtime import outage

    if isinstance(error, CxrError):
        return error
    return outage.given_up(error) or disks.problem(error, get_tracking_uri(), context.places())


def _report(log: logging.Logger, client: "MlflowClient", run_id: str, error: Exception) -> None:
    """Say in one line why the step failed, and tag its run with it."""
    from mlflow.exceptions import MlflowException

    from steps.runtime import logs

    logs.no_longer_stop()
    if isinstance(error, CxrError):
        reason = str(error)
        log.error("%s", reason)
    else:
        reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        log.error("%s (a bug in this program; the traceback is in errors.log)", reason, exc_info=error)
    with suppress(CxrError, MlflowException, OSError):  # the store may be what failed
        client.set_tag(run_id, "cxr.error", reason[:4000])


def _end(log: logging.Logger, client: "MlflowClient", run: "Run", context: Context | None, status: str) -> int:
    """Close the run, and the earlier run that it continued, if any; returns 1 if that cannot be stored."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from steps.runtime import outage

    try:
        if context is not None and context.run_id != run.info.run_id:
            client.set_terminated(context.run_id, status)
        mlflow.end_run(status)
        return 0
    except (CxrError, MlflowException, OSError) as error:
        if status == "FINISHED":  # otherwise the step has said what failed; the next start marks the run
            store = mlflow.get_tracking_uri()
            told = outage.given_up(error) or disks.problem(error, store, [])
            log.error("%s", told or f"the MLflow store {outage.shown(store)} cannot be written: {error}")
        return 1


def _log_logs(context: Context) -> None:
    """Log the log files with the run, and close them."""
    from mlflow.exceptions import MlflowException

    from steps.runtime import logs

    logs.close_files()
    folder = context.folder / "logs"
    if not folder.is_dir():
        return
    try:
        context.put(folder, "logs")
    except (CxrError, MlflowException, OSError) as error:
        # The logs are still in log_dir; what became of the step itself matters more, and often it has the same cause.
        context.log.debug("the log files are not logged with the run: %s", error)


def _failed(step: Step, error: CxrError) -> int:
    print(f"{step.name}: ERROR: {error}", file=sys.stderr)
    if os.environ.get("RANK", "0") == "0":
        _fail_project_run(str(error))
    return 1


def _fail_project_run(reason: str) -> None:
    """Mark the run that MLflow opened for this step as failed; the step failed before it could open that run."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient().set_tag(run_id, "cxr.error", reason[:4000])
        MlflowClient().set_terminated(run_id, "FAILED")
    except (MlflowException, OSError) as error:
        print(f"cannot mark run {run_id} as FAILED: {error}", file=sys.stderr)
