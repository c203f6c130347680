"""What a request costs beside its answer, in microseconds: `python -m bench.watched`.

A picture of 300 kB is sent through whole applications in this process, whose service answers at once: that of MLflow
as it is, and ours, with its request ID, counts, times and line of log, in JSON and as it is. Median of single requests.
"""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from mlflow.pyfunc import scoring_server

from bench.common import parser, report
from cxr.serving import server
from cxr.serving.metrics import Registered
from cxr.serving.request import Limits
from cxr.serving.service import columns
from cxr.serving.watch import Watch

CHUNK, CLASSES = 65536, ("normal", "bacteria", "virus")
KINDS = {"application/json": "JSON", "image/jpeg": "as it is"}


class Instant:
    """Answers each picture with the same row."""

    classes, finding = CLASSES, "pneumonia"
    limits = Limits(20_000_000, 50_000_000, 64, 100_000_000)
    metadata = SimpleNamespace(get_input_schema=lambda: None)

    def __init__(self) -> None:
        self.watch, self.operating_points = Watch(), {"argmax": 0.5}
        row = dict.fromkeys(columns(CLASSES, "pneumonia"), 0.25)
        row |= {"label": "virus", "operating_point": "argmax", "status": "ok", "reasons": "", "decision": "pneumonia"}
        self.table = pd.DataFrame([row])

    def answer(self, _: list[Any], **__: Any) -> pd.DataFrame:
        return self.table

    def predict(self, _: pd.DataFrame, params: dict | None = None) -> pd.DataFrame:
        return self.table


def one(app: Callable, body: bytes, kind: str) -> Callable:
    """A request as uvicorn sends it."""
    parts = [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)]
    messages = [{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts]

    async def request() -> None:
        waiting, sent = iter(messages), []

        async def receive() -> dict:
            return next(waiting, {"type": "http.disconnect"})

        async def send(message: dict) -> None:
            sent.append(message)

        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "path": "/invocations", "query_string": b"",
            "raw_path": b"/invocations", "scheme": "http", "asgi": {"version": "3.0"},
            "headers": [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())],
        }  # fmt: skip
        await app(scope, receive, send)
        if sent[0]["status"] != 200:
            raise SystemExit(f"status {sent[0]['status']}: {sent[1]['body']!r}")

    return request


def measured(app: Callable, bodies: dict[str, bytes], kind: str, count: int) -> float:
    """Median of so many requests of one kind, in microseconds."""

    async def all_of_them() -> float:
        request, times = one(app, bodies[kind], kind), []
        for _ in range(count):
            started = time.perf_counter()
            await request()
            times.append(1e6 * (time.perf_counter() - started))
        return median(times)

    return asyncio.run(all_of_them())


def main() -> None:
    """Measure both applications, one after the other, and print the table."""
    made = parser(__doc__)
    made.add_argument("--count", type=int, default=2000, help="requests of each kind")
    given = made.parse_args()
    picture = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
    row = {"dataframe_records": [{"image": base64.b64encode(picture).decode()}]}
    bodies = {"application/json": json.dumps(row).encode(), "image/jpeg": picture}
    service: Any = Instant()
    found = {"MLflow's, JSON": measured(scoring_server.init(service), bodies, "application/json", given.count)}
    server.prepare(scoring_server, service, Registered("cxr-pneumonia", "1"), 60.0)
    with open("/dev/null", "w") as nowhere:  # noqa: PTH123
        logging.getLogger("cxr").handlers[0].setStream(nowhere)  # type: ignore[attr-defined]
        ours = scoring_server.init(service)
        for kind, name in KINDS.items():
            found[f"ours, {name}"] = measured(ours, bodies, kind, given.count)
    rows = [(name, f"{value:.0f} us") for name, value in found.items()]
    report(given, "What a request costs beside its answer", rows, found)


if __name__ == "__main__":
    main()
