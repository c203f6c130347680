"""The log of the server: one line of JSON on standard error for each request, and one for each fault, with its trace.

No line holds a byte of a picture or of a patient: of a path only the known ones are named, of a query nothing, of a
fault the trace and a message in which long words, such as a picture in base64, are replaced by their length.
"""

import json
import logging
import re
import secrets
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger("cxr.serving")
_access = logging.getLogger("cxr.serving.access")
METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")
OTHER = "other"
HEADER = b"x-request-id"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_LONGEST_WORD, _LONGEST_MESSAGE = 100, 500  # characters in the message of a fault


@dataclass(slots=True)
class Exchange:
    """One request and its answer.

    Attributes:
        request_id: of the caller, if it is short and plain, or made here.
        method, path: one of the known ones, or "other".
        status: of the answer; 0 until it begins.
        received: bytes of the body that were read.
        pictures: in the request; 0 if it was refused before they were counted.
        has_fault: whether a fault has been told.
        started: seconds of a clock.
    """

    request_id: str
    method: str
    path: str
    status: int = 0
    received: int = 0
    pictures: int = 0
    has_fault: bool = False
    started: float = field(default_factory=time.perf_counter)

    def over(self) -> float:
        """Write the line of this request; returns its seconds."""
        seconds = time.perf_counter() - self.started
        if _access.isEnabledFor(logging.INFO):
            told = {
                "request_id": self.request_id,
                "method": self.method,
                "path": self.path,
                "status": self.status,
                "bytes": self.received,
                "seconds": round(seconds, 4),
                "pictures": self.pictures,
            }
            _access.info("request", extra={"told": told})
        return seconds

    def fault(self, error: BaseException) -> str:
        """Write the trace of a fault into the log; returns the line that its caller is told."""
        self.has_fault = True
        log.error("internal error", exc_info=error, extra={"told": {"request_id": self.request_id}})
        return f"internal error; the log of the server has its trace, request ID {self.request_id}"


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The identifier that a caller has sent once, if it is 1 to 64 letters, digits, dots, dashes; otherwise a new one.

    Args:
        headers: as ASGI has them, their names in lower case.
    """
    given = [value for name, value in headers if name == HEADER]
    if len(given) == 1 and _ID.fullmatch(given[0]):
        return given[0].decode()
    return secrets.token_hex(8)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, message, what else it tells, and the trace of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        now = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": now.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": _masked(record.getMessage()),
            **getattr(record, "told", {}),
        }
        if record.exc_info and record.exc_info[1]:
            line["trace"] = _trace(record.exc_info[1])
        return json.dumps(line)


def write_json_lines() -> None:
    """Write every line of this process as JSON, uvicorn's too, and leave its own lines of access out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("cxr")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    others = logging.getLogger()
    if not others.handlers:
        others.addHandler(handler)
    logging.captureWarnings(True)
    for known in logging.getLogger("uvicorn").handlers:
        known.setFormatter(handler.formatter)
    # They name the client and the whole query. Without handlers uvicorn does not even make them.
    logging.getLogger("uvicorn.access").handlers = []


def _trace(error: BaseException) -> str:
    """The trace of an exception and of those before it, the oldest first."""
    parts: list[str] = []
    at: BaseException | None = error
    while at is not None and len(parts) < 10:
        lines = traceback.format_tb(at.__traceback__)
        parts.append("".join([*lines, f"{type(at).__name__}: {_masked(str(at))}"]))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n\n".join(reversed(parts))


def _masked(message: str) -> str:
    words = message[: 100 * _LONGEST_MESSAGE].split()
    return " ".join(w if len(w) <= _LONGEST_WORD else f"({len(w)} characters)" for w in words)[:_LONGEST_MESSAGE]
