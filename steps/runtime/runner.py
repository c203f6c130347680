"""What every step does around its work: command line, run, settings, logs, and a tidy end.

A step is a `Step`, a function `work(context)` and one call of `main(STEP, work)`.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import CxrError
from steps.runtime import process
from steps.runtime.cli import Arguments, Step, parse
from steps.runtime.context import Context

if TYPE_CHECKING:  # mlflow takes seconds to import, and `--help` needs none of it
    from mlflow import MlflowClient
    from mlflow.entities import Run


def main(step: Step, work, argv: list[str] | None = None) -> None:
    """Run a step from its command line to its exit status: 0 done, 1 failed, 130 interrupted."""
    try:
        arguments = parse(step, sys.argv[1:] if argv is None else argv)
        process.stop_on_signals()
        if "MLFLOW_RUN_ID" in os.environ:
            process.stop_with_starter()
        code = _in_run(step, work, arguments)
    except CxrError as error:
        code = _failed(step, error)
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _in_run(step: Step, work, arguments: Arguments) -> int:
    import mlflow

    from steps.runtime import logs, runs

    logs.open_console()
    _quiet_mlflow()
    run, status, code, context = _start(step), "FAILED", 1, None
    client = process.Unbroken(mlflow.MlflowClient())
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
                log=logging.getLogger(f"cxr.{step.name}"),
            )
            context.tag("cxr.process", process.identity())
            runs.mark_abandoned(client, run.info.experiment_id)
            status, code = _work(context, arguments, work)
    finally:
        _end(client, run, context, status)
    return code


def _work(context: Context, arguments: Arguments, work) -> tuple[str, int]:
    """Settings, logs and the step's own work; returns the status of the run and of the process."""
    from steps.runtime import logs
    from steps.runtime.settings import settings_for

    name = context.step.name
    try:
        context.settings = settings_for(context, arguments)
        context.log = logs.open_logs(name, context.run_id, Path(context.settings.log_dir), context.folder / "logs")
        context.put_text(context.settings.to_yaml(), "settings.yaml")
        work(context)
        return "FINISHED", 0
    except CxrError as error:
        context.log.error("%s", error)
        context.tag("cxr.error", str(error)[:4000])
        return "FAILED", 1
    except KeyboardInterrupt:
        context.log.warning("interrupted; what was finished is kept")
        return "KILLED", 130
    except Exception as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        context.log.exception("%s (an error of the program, not yours; its trace is in errors.log)", line)
        context.tag("cxr.error", line[:4000])
        return "FAILED", 1
    finally:
        _keep_logs(context)


def _start(step: Step) -> "Run":
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        with process.unbroken():
            run = mlflow.start_run(log_system_metrics=step.system_metrics)
            mlflow.set_tags({"cxr.step": step.name, "mlflow.runName": step.name})
    except (MlflowException, OSError) as error:
        line = str(error).splitlines()[0]
        raise CxrError(f"the MLflow store {mlflow.get_tracking_uri()} cannot be used: {line}") from None
    return run


def _end(client: "MlflowClient", run: "Run", context: Context | None, status: str) -> None:
    """Close the run; a run that was continued in an earlier one closes that one as well."""
    import mlflow

    if context is not None and context.run_id != run.info.run_id:
        client.set_terminated(context.run_id, status)
    mlflow.end_run(status)


def _keep_logs(context: Context) -> None:
    folder = context.folder / "logs"
    if not folder.is_dir():
        return
    from steps.runtime import logs

    for handler in logging.getLogger().handlers:
        handler.flush()
    try:
        context.put(folder, "logs")
    except CxrError as error:  # the logs are still in log_dir; a full store must not hide the step's own end
        context.log.error("the logs could not be kept with the run: %s", error)
    logs.close_logs()


def _failed(step: Step, error: CxrError) -> int:
    print(f"{step.name}: ERROR: {error}", file=sys.stderr)
    _fail_project_run(str(error))
    return 1


def _fail_project_run(reason: str) -> None:
    """Mark the run that MLflow opened for this step, where the step itself did not come to open it."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient().set_tag(run_id, "cxr.error", reason[:4000])
        MlflowClient().set_terminated(run_id, "FAILED")
    except (MlflowException, OSError) as error:
        print(f"the run {run_id} could not be marked FAILED: {error}", file=sys.stderr)


def _quiet_mlflow() -> None:
    """MLflow's own notices and bars about its store are not news of a step."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    for name in ("mlflow", "alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Environments made by uv hold no pip, and models name every package they need.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
