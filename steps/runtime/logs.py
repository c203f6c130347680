"""Logs of a step: info and above on the console, JSON lines by level in `log_dir` and with the run.

Writes debug.log, info.log, warn.log and errors.log (each with records of its level and above) twice: in `log_dir`,
which all steps share, and in a folder of the run, which becomes its artifact `logs/`.
"""

import logging
import logging.handlers
import sys
import threading
from contextlib import suppress
from pathlib import Path

from concurrent_log_handler import ConcurrentRotatingFileHandler
from pythonjsonlogger.json import JsonFormatter

from cxr.errors import CxrError
from steps.runtime import disks
from steps.runtime.disks import Place

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "errors": logging.ERROR}
MAX_BYTES = 10_000_000  # per file, before it is rotated
BACKUPS = 3
FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s %(process)d"
PACKAGES = ("cxr", "steps")


class _Failure:
    """State shared by the files: the first that could not be written, and whether that still stops the step."""

    error: CxrError | None = None
    stops = False


def open_console() -> None:
    """Send the records of this process to the console only, until `open_logs` is called."""
    close_logs()
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(_console())
    logging.captureWarnings(True)


def open_logs(step: str, run_id: str, log_dir: Path, run_folder: Path) -> None:
    """Send the records of this process to both folders as well.

    A folder that can no longer be written stops the step: its log call, or `check`, raises `CxrError`.
    """
    _Failure.error, _Failure.stops = None, True
    formatter = JsonFormatter(FIELDS, defaults={"step": step, "run_id": run_id})
    kinds = ((_SharedFile, disks.log_dir(log_dir), log_dir), (_RunFile, disks.temporary(), run_folder))
    for kind, place, folder in kinds:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disks.told(place, error.strerror or str(error)) from None
        for name, level in LEVELS.items():
            handler = kind(folder / f"{name}.log", maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8")
            handler.place = place
            handler.setLevel(level)
            handler.setFormatter(formatter)
            handler.addFilter(_is_ours_or_warning if level > logging.DEBUG else _is_no_chatter)
            logging.getLogger().addHandler(handler)


def check() -> None:
    """Raise `CxrError` if a record could not be written and nobody has been told, as in a thread."""
    if _Failure.error is not None:
        raise _Failure.error


def no_longer_stop() -> None:
    """From now on, files that cannot be written are left out: the step is ending, and its own message comes first."""
    _Failure.stops = False


def close_files() -> None:
    """Close the files; the console stays."""
    for handler in list(logging.getLogger().handlers):
        if isinstance(handler, _File):
            _detach(handler)


def close_logs() -> None:
    """Detach all handlers of the root logger, and let it drop what is below a warning again."""
    logging.getLogger().setLevel(logging.WARNING)
    for handler in list(logging.getLogger().handlers):
        _detach(handler)


def _detach(handler: logging.Handler) -> None:
    logging.getLogger().removeHandler(handler)
    handler.close()


class _File(logging.FileHandler):
    """A log file that stops the step when it cannot be written, instead of printing a trace for every record."""

    place: Place

    def close(self) -> None:
        """Close the file; a record that could not be written, and so cannot be flushed either, is dropped."""
        if self.stream is not None:
            with suppress(OSError):
                self.stream.close()
            self.stream = None
        super().close()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Detach the files of this place; raise `CxrError` where the step can still be stopped."""
        error = sys.exc_info()[1]
        if isinstance(error, CxrError):  # raised below, and caught by a rotating handler on its way out
            raise error
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        for handler in list(logging.getLogger().handlers):
            if isinstance(handler, _File) and handler.place == self.place:
                _detach(handler)
        failure = disks.told(self.place, error.strerror or str(error))
        _Failure.error = _Failure.error or failure
        if _Failure.stops and threading.current_thread() is threading.main_thread():
            raise failure from None


class _SharedFile(_File, ConcurrentRotatingFileHandler):
    """A file in `log_dir`. Driver and steps write to it at the same time; the handler locks it."""


class _RunFile(_File, logging.handlers.RotatingFileHandler):
    """A file of the run."""


def _console() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.INFO)
    handler.setFormatter(_ConsoleFormatter())
    handler.addFilter(_is_ours_or_warning)
    return handler


class _ConsoleFormatter(logging.Formatter):
    """`12:30:05 train: 3 of 20 epochs`, with the last part of our logger names; the level from warning upwards."""

    def __init__(self):
        super().__init__("%(asctime)s %(source)s: %(severity)s%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.source = record.name.rpartition(".")[2] if _is_ours(record) else record.name
        record.severity = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        info, record.exc_info = record.exc_info, None  # stack traces belong to debug.log and errors.log
        text, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_info, record.exc_text = info, text


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.split(".", maxsplit=1)[0] in PACKAGES


def _is_ours_or_warning(record: logging.LogRecord) -> bool:
    return _is_ours(record) or record.levelno >= logging.WARNING


def _is_no_chatter(record: logging.LogRecord) -> bool:
    """Keep debug records of libraries, except those that log every query or font."""
    chatty = ("matplotlib", "alembic", "sqlalchemy", "urllib3", "git", "PIL", "filelock", "asyncio")
    return record.levelno > logging.DEBUG or record.name.split(".", maxsplit=1)[0] not in chatty
