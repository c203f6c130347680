"""How several processes do a training together: how many, their start by PyTorch's launcher, and the work of each.

The launcher is that of `torchrun`. It gives the processes the variables that `cxr.common.share` reads, ends all of them
when one fails, and knows which did.
"""

import logging
import signal
import sys
import time
import traceback
import uuid
from contextlib import suppress
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure, get_error_handler
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cxr.errors import CxrError, LostError
from cxr.training import distributed
from steps.runtime.cli import Arguments
from steps.runtime.settings import early
from steps.runtime.supervisor import LOST, asked

_OURS = "CxrError: "  # how the launcher's record of an error that the user can correct begins
_ENDED = (LOST, 130, -signal.SIGTERM)  # exit statuses of processes that ended because another one did


def wanted(arguments: Arguments) -> int:
    """How many processes train on this machine: as many as asked for, or one per card; without cards, one.

    Raises:
        CxrError: there are fewer cards.
    """
    number, cards = asked(arguments.flags), _cards(arguments)
    if number is None:
        return max(1, cards)
    if cards and number > cards:
        raise CxrError(
            f"processes={number}: this machine has {cards} cards, one for each process; give at most {cards}, or "
            "-P device=cpu to train on its cores"
        )
    return number


def _cards(arguments: Arguments) -> int:
    """Cards that a training would use here."""
    present = torch.cuda.device_count()
    return 0 if not present or early(arguments, "device") in ("cpu", "mps") else present


def start(command: list[str], count: int, folder: Path) -> bool:
    """Run `python COMMAND` in `count` processes; False if the first of them has failed, which says why itself.

    Args:
        command: arguments of Python.
        count: number of processes on this machine.
        folder: for what the processes leave when they fail.

    Raises:
        CxrError: one of the others has failed, or any was killed.
        KeyboardInterrupt: this process was interrupted, and has interrupted them.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
    )
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # what they tell in many lines is told below in one
    try:
        elastic_launch(config, sys.executable)(*command)
        return True
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        first = error.failures.get(0)
        if first is not None and first.exitcode == 1:
            return False
        raise CxrError(_cause(error.failures, count)) from None
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):  # the launcher's handlers would break off what is left to do
            signal.signal(number, signal.SIG_IGN)


def _cause(failures: dict[int, ProcessFailure], count: int) -> str:
    """Which process has ended the training, and why; the others have ended because of it."""

    def order(rank: int) -> tuple[bool, bool, int]:
        failure = failures[rank]
        unsaid = isinstance(failure.message, str)
        return unsaid and failure.exitcode in _ENDED, unsaid and failure.exitcode == LOST, failure.timestamp

    rank = min(failures, key=order)
    failure, go_on = failures[rank], "start again to go on from the last checkpoint"
    if isinstance(failure.message, dict):  # recorded by the process itself
        words = str(failure.message["message"])
        ours = words.startswith(_OURS)
        return f"process {rank} of {count}: {words.removeprefix(_OURS)}{'' if ours else ' (a bug in this program)'}"
    if failure.exitcode < 0:
        out_of_memory = " (was it out of memory?)" if failure.exitcode == -signal.SIGKILL else ""
        return f"process {rank} of {count} was killed by {failure.signal_name()}{out_of_memory}; {go_on}"
    return f"process {rank} of {count} ended with status {failure.exitcode} and no message; {go_on}"


def take_part() -> int:
    """Do the work of any process but the first; returns its exit status.

    Raises:
        MeetingError: the other processes are not found.
    """
    from steps.work import training

    try:
        training.take_part()
        return 0
    except KeyboardInterrupt:
        return 130
    except LostError:
        return LOST
    except distributed.MeetingError:
        raise
    except Exception as error:
        get_error_handler().record_exception(CxrError(str(error)) if isinstance(error, CxrError) else error)
        if not isinstance(error, CxrError):
            traceback.print_exc()
        with suppress(KeyboardInterrupt):  # let the first process end, which tells it: it ends the run and is followed
            time.sleep(distributed.LAST_WORDS_S)
        return 1
