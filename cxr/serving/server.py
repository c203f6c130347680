"""MLflow's server, made one that can face strangers and be watched.

MLflow loads the model before it builds its application, a `fastapi.FastAPI`. `prepare` puts a subclass in that place,
with endpoints of its own before those of MLflow: `/invocations` (see `cxr.serving.endpoint`), `/metrics` and `/ready`.
Around all of it one observer gives each request its ID, counts it and writes its line into the log.
"""

import asyncio
import io
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import FrameType, ModuleType
from typing import Any

import fastapi
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr.serving import access, answers, workers
from cxr.serving.access import HEADER, Exchange, log
from cxr.serving.endpoint import CLIENT_CLOSED_REQUEST, EXCHANGE, Invocations, refusal
from cxr.serving.metrics import INVOCATIONS, Metrics, Registered
from cxr.serving.service import Service
from cxr.serving.watch import Watch

# nginx in MLflow's container passes what begins with /ping or /invocations, and nothing else.
METRICS, READY = ("/metrics", "/ping/metrics"), ("/ready", "/ping/ready")
_PATHS = {INVOCATIONS, *METRICS, *READY, "/ping", "/health", "/version"}
_TEXT = "text/plain; version=0.0.4; charset=utf-8"  # every Prometheus reads it
_MORE_S = 5  # after the time limit of a request, when the server is told to stop
_FastAPI = fastapi.FastAPI


def prepare(server: ModuleType, service: Service, registered: Registered, seconds: float) -> None:
    """Make the application that MLflow's module `server` builds next ours.

    `seconds` is the time limit of a request.
    """
    if fastapi.FastAPI is not _FastAPI:  # the model is loaded twice
        return
    access.write_json_lines()
    crew = workers.join()
    metrics = Metrics(service, registered, crew)
    invocations = Invocations(service, metrics, seconds)
    at_end = [crew.leave] if crew else []
    kept = answers.opened(service, metrics.unlogged.inc)
    if kept is not None:
        invocations.listeners.append(kept.add)
        at_end.append(kept.close)
    watched = Watched(invocations, metrics, at_end)

    class Application(_FastAPI):
        """MLflow's application."""

        def __init__(self, **settings: Any):
            fastapi.FastAPI = _FastAPI  # type: ignore[misc]
            super().__init__(lifespan=watched.lifespan, exception_handlers={Exception: watched.on_fault}, **settings)
            self.add_route(INVOCATIONS, invocations.respond, methods=["POST"])
            for path in METRICS:
                self.add_route(path, watched.metrics, methods=["GET"])
            for path in READY:
                self.add_route(path, watched.ready, methods=["GET"])

        def middleware(self, middleware_type: str) -> Callable:
            """Leave out MLflow's time limit, which costs a task for each part of a body: `Invocations` has its own."""
            add = super().middleware(middleware_type)
            return lambda function: function if function.__name__ == "timeout_middleware" else add(function)

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await watched.observe(super().__call__, scope, receive, send)
            else:
                await super().__call__(scope, receive, send)

    fastapi.FastAPI = Application  # type: ignore[misc]
    server.invocations = _unreachable  # type: ignore[attr-defined]
    _exit_with_zero()


class Watched:
    """What surrounds the endpoint for answers: observer, metrics, readiness, beginning and end."""

    def __init__(self, invocations: Invocations, metrics: Metrics, at_end: Sequence[Callable[[], None]] = ()):
        self._invocations, self._metrics, self._at_end = invocations, metrics, at_end

    async def observe(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let `app` answer a request, with an ID, a line in the log and a place in the counts, whatever happens."""
        headers, path, method = scope["headers"], scope["path"], scope["method"]
        exchange = scope[EXCHANGE] = Exchange(
            access.request_id(headers),
            method if method in access.METHODS else access.OTHER,
            path if path in _PATHS else access.OTHER,
        )

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message.get("headers", ()), (HEADER, exchange.request_id.encode())]
            await send(message)

        try:
            await app(scope, receive, sending)
        except Exception as error:  # Starlette passes on what `on_fault` has answered
            line = "" if exchange.has_fault else exchange.fault(error)
            if not exchange.status:
                await refusal(500, line)(scope, receive, sending)
        finally:
            exchange.status = exchange.status or CLIENT_CLOSED_REQUEST
            self._metrics.request(exchange.path, exchange.status, exchange.over(), exchange.received)

    async def on_fault(self, request: Request, error: Exception) -> Response:
        """The answer for a fault outside the endpoint for answers."""
        return refusal(500, request.scope[EXCHANGE].fault(error))

    async def metrics(self, request: Request) -> Response:
        """All counts; in a thread of its own, since those for answers may all be busy."""
        return Response(await run_in_threadpool(self._metrics.text), headers={"Content-Type": _TEXT})

    async def ready(self, request: Request) -> Response:
        """Status 200 once an answer has been given, the one at the start included."""
        if self._invocations.has_answered:
            return Response("\n", media_type="application/json")
        return refusal(503, "no answer has been given yet")

    @asynccontextmanager
    async def lifespan(self, _: ASGIApp) -> AsyncIterator[None]:
        """Answer once before the first caller, whom the server then listens to; at the end, leave nothing behind."""
        _limit_shutdown(self._invocations.seconds + _MORE_S)
        await asyncio.to_thread(self._warm_up)
        service = self._invocations.service
        service.watch = Watch(decoding=self._metrics.decoding.observe, network=self._metrics.network.observe)
        yield
        for end in self._at_end:
            end()

    def _warm_up(self) -> None:
        """Answer a drawn picture. If that fails, `/ready` has status 503 until a caller is answered."""
        try:
            self._invocations.has_answered = len(self._invocations.service.records([drawn()])) > 0
        except Exception as error:
            log.error("the first answer failed; /ready has status 503 until one succeeds", exc_info=error)


def drawn() -> bytes:
    """A JPEG file of a few kilobytes that anybody may see: a grey gradient."""
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "JPEG")
    return file.getvalue()


def _unreachable(*_: Any) -> None:
    raise RuntimeError("MLflow's own endpoint must not be reached; this version of MLflow builds another application")


def _exit_with_zero() -> None:
    """End with status 0 after SIGTERM: uvicorn finishes what it has begun, and then sends itself the signal again."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def _exit(_: int, __: FrameType | None) -> None:
    raise SystemExit(0)


def _limit_shutdown(seconds: float) -> None:
    """Let uvicorn, whose handler of SIGTERM is a method of its server, wait no longer than this for connections."""
    config = getattr(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), "config", None)
    if config is not None and getattr(config, "timeout_graceful_shutdown", 0) is None:
        config.timeout_graceful_shutdown = round(seconds)
