"""MLflow's application as `cxr.serving.server` makes it, in this process, with a service that does as it is told."""

import asyncio
import io
import json
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import fastapi
import pandas as pd
import pytest
from mlflow.pyfunc import scoring_server

from cxr.errors import ImageError
from cxr.serving import server
from cxr.serving.metrics import Registered
from cxr.serving.request import Limits, image_bytes
from cxr.serving.service import MEASURED, columns
from cxr.serving.watch import Watch

CLASSES = ("normal", "bacteria", "virus")
JPEG = b"\xff\xd8\xff the bytes of patient 4711 \x00\x01"
SECONDS = 60.0


class Told:
    """Stands in for a `Service`: each picture gets a row, unless it is told to do something else."""

    classes, finding, operating_point = CLASSES, "pneumonia", "argmax"
    limits = Limits(max_bytes=3000, max_pixels=1000, max_images=3, max_request_bytes=9000)

    def __init__(self) -> None:
        self.operating_points = {"argmax": 0.5, "sensitive": 0.2}
        self.watch, self.instead, self.status, self.reasons = Watch(), None, "ok", ""
        self.seen: list[tuple[list[bytes], dict[str, Any]]] = []

    def records(self, values: list[Any], **options: Any) -> list[dict[str, Any]]:
        """An answer to each, with the length of its picture as a probability."""
        pictures = [image_bytes(value, self.limits.max_bytes) for value in values]
        self.seen.append((pictures, options))
        if self.instead is not None and len(self.seen) > 1:  # not at the start of the server
            self.instead()
        point = options.get("point") or self.operating_point
        if point not in self.operating_points:
            raise ImageError("unknown operating_point; expected one of argmax, sensitive")
        values = {"label": "virus", "operating_point": point, "status": self.status, "reasons": self.reasons}
        rows = [{**values, "probability_virus": float(len(picture))} for picture in pictures]
        measured = dict.fromkeys(MEASURED, 2) if options.get("measured") else {}
        return [{name: row.get(name) for name in columns(CLASSES, "pneumonia")} | measured for row in rows]

    def table(self, records: list[dict[str, Any]], measured: bool = False) -> pd.DataFrame:
        """The same as a table."""
        return pd.DataFrame(records, dtype=object)


class Application:
    """A client of the application, as ASGI."""

    def __init__(self, service: Any, seconds: float = SECONDS):
        server.prepare(scoring_server, service, Registered("cxr-pneumonia", "7"), seconds)
        self.service, self._lines, self._read = service, io.StringIO(), 0
        logging.getLogger("cxr").handlers[0].setStream(self._lines)
        self.app = scoring_server.init(SimpleNamespace(metadata=SimpleNamespace(get_input_schema=lambda: None)))

    def start(self) -> "Application":
        """Begin and end the life of the application, as a server does around its requests."""
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        self._run({"type": "lifespan", "asgi": {"version": "3.0"}}, messages)
        return self

    def ask(
        self,
        path: str = "/invocations",
        data: bytes | list[bytes] = b"",
        kind: str | None = None,
        method: str = "POST",
        **headers: str,
    ) -> SimpleNamespace:
        """The answer to a request: `status`, `headers`, `text` and, if it is JSON, `told`."""
        parts, (path, _, query) = data if isinstance(data, list) else [data], path.partition("?")
        named = {**headers, **({"content-type": kind} if kind is not None else {})}
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": query.encode(), "scheme": "http", "asgi": {"version": "3.0"},
            "headers": [(name.replace("_", "-").lower().encode(), text.encode()) for name, text in named.items()],
        }  # fmt: skip
        last = len(parts) - 1
        messages = [{"type": "http.request", "body": part, "more_body": i < last} for i, part in enumerate(parts)]
        start, *rest = self._run(scope, messages)
        text = b"".join(message.get("body", b"") for message in rest).decode()
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        told = json.loads(text) if text.startswith("{") else None
        return SimpleNamespace(status=start["status"], headers=found, text=text, told=told)

    def log(self) -> list[dict]:
        """What the server has written since the last call."""
        text, self._read = self._lines.getvalue()[self._read :], len(self._lines.getvalue())
        return [json.loads(line) for line in text.splitlines()]

    def metric(self, line: str) -> float:
        """The value of a line of `/metrics`, by its name and labels."""
        found = [text for text in self.ask("/metrics", method="GET").text.splitlines() if text.startswith(f"{line} ")]
        return float(found[0].split()[-1])

    def _run(self, scope: dict, messages: list[dict]) -> list[dict]:
        sent: list[dict] = []
        waiting = iter(messages)

        async def receive() -> dict:
            return next(waiting, {"type": "http.disconnect"})

        async def send(message: dict) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        return sent


@contextmanager
def applications(patch: pytest.MonkeyPatch) -> Iterator[Callable[..., Application]]:
    """Make applications; afterwards MLflow's module, the loggers and the signals are as they were."""
    loggers = [logging.getLogger(name) for name in ("", "cxr", "uvicorn", "uvicorn.access")]
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    term = signal.getsignal(signal.SIGTERM)
    patch.setattr(scoring_server, "invocations", scoring_server.invocations)
    patch.setattr(fastapi, "FastAPI", fastapi.FastAPI)
    try:
        yield Application
    finally:
        logging.captureWarnings(False)
        signal.signal(signal.SIGTERM, term)
        for logger, handlers, propagate, level in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
