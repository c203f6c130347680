"""A step done by several processes: the process that starts them, and tells how they end.

The first of them is the step as it is with one process: it alone has the run, the logs and the results. The supervisor
runs none of the step's work. It ends the run where the first process cannot: because it, or another one, was killed.
"""

import logging
import os
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.common.share import SUPERVISED
from cxr.errors import CxrError
from steps.runtime import process, scratch
from steps.runtime.cli import Arguments, Step

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOST = 75  # exit status of a process that ends because another one did
UNTOLD = "it ended without a message (was it killed, or out of memory?); start again to go on from there"


def asked(flags: dict[str, str]) -> int | None:
    """The parameter `processes`; None where it is not given, or `auto`."""
    text = flags.get("processes", "auto")
    if text == "auto":
        return None
    if not text.isdecimal() or not int(text):
        raise CxrError(f"processes={text}: expected a whole number from 1 on, or auto")
    return int(text)


def supervise(step: Step, arguments: Arguments, argv: list[str], count: int) -> int:
    """Let `count` processes do the step together, and close its run; returns the exit status."""
    import mlflow

    from steps.runtime import logs, outage, store

    logs.open_console()
    store.quiet()
    run_id = store.open_run(replace(step, system_metrics=False)).info.run_id
    client = outage.patient_client()
    log = logging.getLogger(f"steps.{step.name}")
    os.environ |= {"MLFLOW_RUN_ID": run_id, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), SUPERVISED: "1"}
    status, code = "FAILED", 1
    try:
        with scratch.folder(step.name) as folder:
            client.set_tag(run_id, "cxr.process", process.identity())
            command = ["-m", f"steps.{step.name}", *argv]
            try:
                if import_module("steps.work.processes").start(command, count, folder):
                    status, code = "FINISHED", 0
                elif "cxr.error" not in _tags(client, run_id):
                    raise CxrError(UNTOLD)
            except CxrError as error:
                logs.open_logs(step.name, run_id, _log_dir(arguments), folder / "logs")
                log.error("%s", error)
                _tell(client, run_id, str(error))
    except KeyboardInterrupt:
        log.warning("interrupted; finished work is kept")
        status, code = "KILLED", 130
    except CxrError as error:  # no scratch folder, or no folder for the logs
        log.error("%s", error)
        _tell(client, run_id, str(error))
    finally:
        _end(client, run_id, status)
        logs.close_logs()
    return code


def _log_dir(arguments: Arguments) -> Path:
    """The folder of the log files that all steps share, as the first process has found it."""
    from steps.runtime.settings import early

    return Path(str(early(arguments, "log_dir")))


def _tags(client: "MlflowClient", run_id: str) -> dict[str, str]:
    """The tags of a run, and those of the earlier run that it continues."""
    tags = client.get_run(run_id).data.tags
    earlier = tags.get("cxr.resumes")
    return {**tags, **(client.get_run(earlier).data.tags if earlier else {})}


def _tell(client: "MlflowClient", run_id: str, reason: str) -> None:
    """Tag the run, and the earlier one that it continues, with what ended it, and remove what is half-written."""
    from mlflow.exceptions import MlflowException

    from steps.runtime import runs

    with suppress(CxrError, MlflowException, OSError):  # the store may be what failed
        for each in {run_id, _tags(client, run_id).get("cxr.resumes", run_id)}:
            client.set_tag(each, "cxr.error", reason[:4000])
            runs.tidy(client, each)


def _end(client: "MlflowClient", run_id: str, status: str) -> None:
    """Close the run, and the earlier run that it continues; the first process has done so unless it was killed."""
    import mlflow
    from mlflow.exceptions import MlflowException

    with suppress(CxrError, MlflowException, OSError):
        earlier = _tags(client, run_id).get("cxr.resumes")
        if earlier is not None and status != "FINISHED":
            client.set_terminated(earlier, status)
        mlflow.end_run(status)
