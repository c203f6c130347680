"""Run a step from its command line to its exit status: MLflow run, settings, logs, and cleanup.

A step is a `Step` in `steps/NAME.py`, which calls `main(STEP)`, and a function `run(context)` in
`steps/work/NAME.py`.
"""

import logging
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import CxrError
from steps.runtime import process
from steps.runtime.cli import Arguments, Step, parse
from steps.runtime.context import Context

if TYPE_CHECKING:  # mlflow takes seconds to import, and `--help` does without it
    from mlflow import MlflowClient
    from mlflow.entities import Run


def main(step: Step, argv: list[str] | None = None) -> None:
    """Run a step and exit: 0 if it finished, 1 if it failed, 130 if it was interrupted."""
    try:
        arguments = parse(step, sys.argv[1:] if argv is None else argv)
        process.stop_on_signals()
        if "MLFLOW_RUN_ID" in os.environ:
            process.stop_with_starter()
        code = _in_run(step, arguments)
    except CxrError as error:
        code = _failed(step, error)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _in_run(step: Step, arguments: Arguments) -> int:
    """Open a run, do the step's work in it, and close it; returns the exit status."""
    import mlflow

    from steps.runtime import logs, runs

    logs.open_console()
    _quiet_mlflow()
    run, status, code, context = _start(step), "FAILED", 1, None
    client = process.with_unbroken_calls(mlflow.MlflowClient())
    try:
        with tempfile.TemporaryDirectory(prefix=f"cxr-{step.name}-") as scratch:
            context = Context(
                step=step,
                flags=arguments.flags,
                overrides=arguments.overrides,
                run_id=run.info.run_id,
                experiment_id=run.info.experiment_id,
                client=client,
                folder=Path(scratch),
                log=logging.getLogger(f"steps.{step.name}"),
            )
            context.tag("cxr.process", process.identity())
            runs.mark_abandoned(client, run.info.experiment_id)
            status, code = _work(context, arguments)
    finally:
        _end(client, run, context, status)
    return code


def _work(context: Context, arguments: Arguments) -> tuple[str, int]:
    """Resolve settings, open the logs and do the step's work; returns the status of the run and the exit status."""
    from steps.runtime import logs
    from steps.runtime.settings import settings_for

    name = context.step.name
    try:
        context.settings = settings_for(context, arguments)
        logs.open_logs(name, context.run_id, Path(context.settings.log_dir), context.folder / "logs")
        context.put_text(context.settings.to_yaml(), "settings.yaml")
        # Imported only now, by name: it imports torch and mlflow, which `--help` does without.
        import_module(f"steps.work.{name}").run(context)
        return "FINISHED", 0
    except CxrError as error:
        context.log.error("%s", error)
        context.tag("cxr.error", str(error)[:4000])
        return "FAILED", 1
    except KeyboardInterrupt:
        context.log.warning("interrupted; finished work is kept")
        return "KILLED", 130
    except Exception as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        context.log.exception("%s (a bug in this program; the traceback is in errors.log)", line)
        context.tag("cxr.error", line[:4000])
        return "FAILED", 1
    finally:
        _log_logs(context)


def _start(step: Step) -> "Run":
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        with process.unbroken():
            run = mlflow.start_run(log_system_metrics=step.system_metrics)
            mlflow.set_tags({"cxr.step": step.name, "mlflow.runName": step.name})
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise CxrError(f"the MLflow store {mlflow.get_tracking_uri()} cannot be used: {reason}") from None
    return run


def _end(client: "MlflowClient", run: "Run", context: Context | None, status: str) -> None:
    """Close the run, and the earlier run that it continued, if any."""
    import mlflow

    if context is not None and context.run_id != run.info.run_id:
        client.set_terminated(context.run_id, status)
    mlflow.end_run(status)


def _log_logs(context: Context) -> None:
    folder = context.folder / "logs"
    if not folder.is_dir():
        return
    from steps.runtime import logs

    for handler in logging.getLogger().handlers:
        handler.flush()
    try:
        context.put(folder, "logs")
    except CxrError as error:  # the logs are still in log_dir; a full store must not hide how the step itself ended
        context.log.error("cannot log the log files with the run: %s", error)
    logs.close_logs()


def _failed(step: Step, error: CxrError) -> int:
    print(f"{step.name}: ERROR: {error}", file=sys.stderr)
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


def _quiet_mlflow() -> None:
    """Silence MLflow's progress bars and its notices about the store."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    for name in ("mlflow", "alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It warns where pip is missing; environments made by uv have none, and models list every package they need.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
