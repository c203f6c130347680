"""Logs of a step: info and up on the console, JSON lines by level in `log_dir` and with the run.

Writes debug.log, info.log, warn.log and errors.log (each holds its level and what is graver) twice: in `log_dir`,
which all steps share, and in a folder of the run's own, which becomes its artifact `logs/`.
"""

import logging
import logging.handlers
import sys
from pathlib import Path

from concurrent_log_handler import ConcurrentRotatingFileHandler
from pythonjsonlogger.json import JsonFormatter

from cxr.errors import CxrError

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "errors": logging.ERROR}
MAX_BYTES = 10_000_000  # 10 MB a file, then it is rotated
BACKUPS = 3
FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s %(process)d"


def open_console() -> None:
    """Send the records of this process to the console, and nowhere else yet."""
    close_logs()
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(_console())
    logging.captureWarnings(True)


def open_logs(step: str, run_id: str, log_dir: Path, run_folder: Path) -> logging.Logger:
    """Send the records of this process to both folders as well; returns the step's logger."""
    root = logging.getLogger()
    extra = {"step": step, "run_id": run_id}
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        run_folder.mkdir(parents=True, exist_ok=True)
        for name, level in LEVELS.items():
            # Driver and steps write to the shared files at the same time; this handler locks them.
            shared = ConcurrentRotatingFileHandler(
                str(log_dir / f"{name}.log"), maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8"
            )
            own = logging.handlers.RotatingFileHandler(
                run_folder / f"{name}.log", maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8"
            )
            for handler in (shared, own):
                handler.setLevel(level)
                handler.setFormatter(JsonFormatter(FIELDS, defaults=extra))
                handler.addFilter(_ours_or_warning if level > logging.DEBUG else _not_chatter)
                root.addHandler(handler)
    except OSError as error:
        raise CxrError(f"log_dir {log_dir}: {error.strerror or error}; name a folder that can be written") from None
    return logging.getLogger(f"cxr.{step}")


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
    handler.addFilter(_ours_or_warning)
    return handler


class _ConsoleFormatter(logging.Formatter):
    """`12:30:05 train: 3 of 20 epochs`; the level only where it is graver than info."""

    def __init__(self):
        super().__init__("%(asctime)s %(short)s: %(grave)s%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.short = record.name.removeprefix("cxr.")
        record.grave = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        info, record.exc_info = record.exc_info, None  # stack traces belong to debug.log and errors.log
        text, record.exc_text = record.exc_text, None
        try:
            return super().format(record)
        finally:
            record.exc_info, record.exc_text = info, text


def _ours_or_warning(record: logging.LogRecord) -> bool:
    return record.name.split(".")[0] == "cxr" or record.levelno >= logging.WARNING


def _not_chatter(record: logging.LogRecord) -> bool:
    """Debug logs keep what libraries say, but not what they whisper for every query and every font."""
    chatty = ("matplotlib", "alembic", "sqlalchemy", "urllib3", "git", "PIL", "filelock", "asyncio")
    return record.levelno > logging.DEBUG or record.name.split(".")[0] not in chatty
