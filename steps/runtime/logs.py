"""Logs of a step: info and above on the console, JSON lines by level in `log_dir` and with the run.

Writes debug.log, info.log, warn.log and errors.log (each with records of its level and above) twice: in `log_dir`,
which all steps share, and in a folder of the run, which becomes its artifact `logs/`.
"""

import logging
import logging.handlers
import sys
from pathlib import Path

from concurrent_log_handler import ConcurrentRotatingFileHandler
from pythonjsonlogger.json import JsonFormatter

from cxr.errors import CxrError

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "errors": logging.ERROR}
MAX_BYTES = 10_000_000  # per file, before it is rotated
BACKUPS = 3
FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s %(process)d"
PACKAGES = ("cxr", "steps")


def open_console() -> None:
    """Send the records of this process to the console only, until `open_logs` is called."""
    close_logs()
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(_console())
    logging.captureWarnings(True)


def open_logs(step: str, run_id: str, log_dir: Path, run_folder: Path) -> None:
    """Send the records of this process to both folders as well."""
    root = logging.getLogger()
    fields = {"step": step, "run_id": run_id}
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        run_folder.mkdir(parents=True, exist_ok=True)
        for name, level in LEVELS.items():
            # Driver and steps write to the shared files at the same time; this handler locks them.
            shared = ConcurrentRotatingFileHandler(
                str(log_dir / f"{name}.log"), maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8"
            )
            private = logging.handlers.RotatingFileHandler(
                run_folder / f"{name}.log", maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8"
            )
            for handler in (shared, private):
                handler.setLevel(level)
                handler.setFormatter(JsonFormatter(FIELDS, defaults=fields))
                handler.addFilter(_is_ours_or_warning if level > logging.DEBUG else _is_no_chatter)
                root.addHandler(handler)
    except OSError as error:
        raise CxrError(f"log_dir {log_dir} is not writable ({error.strerror or error}); give another folder") from None


def close_logs() -> None:
    """Flush and detach all handlers of the root logger."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()


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
