"""The endpoint for answers: a body within limits, an answer of the service, and one line for all that goes wrong.

MLflow's own endpoint echoes a body that it cannot parse, answers faults of the model with status 400 and a stack trace
that it does not log, takes bodies of any length, and logs a stack trace for each client that goes away.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from cxr.errors import BusyError, ImageError
from cxr.serving import body
from cxr.serving.access import Exchange, log
from cxr.serving.budget import Place, Room
from cxr.serving.metrics import Metrics
from cxr.serving.service import MEASURED, Service

EXCHANGE = "cxr.exchange"  # key of a request's scope, with its `Exchange`
Listener = Callable[[pd.DataFrame, str], None]
CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody is left to read it
_CODES = {
    400: "INVALID_PARAMETER_VALUE",
    413: "BAD_REQUEST",
    415: "BAD_REQUEST",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "TEMPORARILY_UNAVAILABLE",
}


class _TooLongError(Exception):
    pass


class _OtherTimeoutError(Exception):
    """A `TimeoutError` of something else than the time limit of a request."""


class Invocations:
    """Answers requests for answers.

    Args:
        service: gives the answers.
        metrics: count them.
        seconds: time limit of a request, its reading included.

    Attributes:
        listeners: called with every table of answers and the ID of its request, in the thread that made it; the table
            has the columns `MEASURED` for them, and must stay as it is.
        has_answered: whether any picture has been answered yet.
    """

    def __init__(self, service: Service, metrics: Metrics, seconds: float):
        self.service, self.metrics, self.seconds = service, metrics, seconds
        self.room = Room(service.limits.max_request_bytes)
        self.listeners: list[Listener] = []
        self.has_answered = False

    async def respond(self, request: Request) -> Response:
        """The answer to a request, whose scope holds its `Exchange`."""
        exchange: Exchange = request.scope[EXCHANGE]
        self.metrics.open_requests.inc()
        try:
            return await self._answered(request, exchange)
        except ClientDisconnect:  # before its request was complete: no fault, and nobody to answer
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        except Exception as error:
            return refusal(500, exchange.fault(error))
        finally:
            self.metrics.open_requests.dec()

    async def _answered(self, request: Request, exchange: Exchange) -> Response:
        kind = body.kind_of(request.headers.get("content-type"))
        if not kind:
            return refusal(415, f"the content type must be {body.KINDS}")
        limits = self.service.limits
        is_picture = kind == body.PICTURE
        most = min(limits.max_bytes, limits.max_request_bytes) if is_picture else limits.max_request_bytes
        try:
            beside = body.options(request.query_params.multi_items(), request.headers.items())
            async with asyncio.timeout(self.seconds) as clock, self.room.entered() as place:
                data = await _read(request, most, exchange, place)
                text = await place.done(self._in_thread, data, kind, beside, exchange)
        except _TooLongError:
            what = "picture; send a smaller file" if is_picture else "request; send fewer images"
            return refusal(413, f"more than {most:,} bytes in one {what}")
        except ImageError as error:
            return refusal(400, str(error))
        except BusyError as error:
            return refusal(error.status, str(error))
        except TimeoutError:
            if not clock.expired():
                raise
            return refusal(504, f"not answered within {self.seconds:g} s; send fewer or smaller images")
        return Response(text, media_type=body.JSON)

    def _in_thread(self, *request: Any) -> str:
        try:
            return self.answer(*request)
        except TimeoutError as error:  # asyncio would drop its trace
            raise _OtherTimeoutError from error

    def answer(self, data: bytes, kind: str, beside: dict[str, Any], exchange: Exchange) -> str:
        """The JSON of the answers to a body, with the parameters given beside it. Thread-safe; raises as `Service`."""
        cells, given = body.parse(data, kind, self.service.limits.max_images)
        params = body.merged(given, beside)
        self.service.limits.check(len(cells))
        exchange.pictures = len(cells)
        with self.metrics.working(len(cells)):
            answers = self.service.records(
                cells,
                point=params.get("operating_point", ""),
                with_heatmap=params.get("heatmap", False),
                strict=params.get("strict", True),
                measured=bool(self.listeners),
            )
            return self._passed_on(answers, exchange)

    def _passed_on(self, answers: list[dict[str, Any]], exchange: Exchange) -> str:
        """The JSON of answers, as MLflow's server writes a table: all answers pass here, once, on their way out."""
        sent = [{name: cell for name, cell in answer.items() if name not in MEASURED} for answer in answers]
        text = json.dumps({"predictions": sent})  # not by way of a table, which takes as long as decoding a picture
        self.metrics.answered(answers)
        self.has_answered = self.has_answered or len(answers) > 0
        for listener in self.listeners:
            try:
                listener(self.service.table(answers, measured=True), exchange.request_id)
            except Exception as error:  # the answer is right, and its caller waits for it
                told = {"request_id": exchange.request_id}
                log.error("an answer was not passed on", exc_info=error, extra={"told": told})
        return text


async def _read(request: Request, most: int, exchange: Exchange, place: Place) -> bytes:
    """The body of a request; no more of it than `most` bytes is ever kept."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise _TooLongError
    announced = int(declared) if declared.isdecimal() else most
    parts: list[bytes] = []
    async for part in request.stream():
        exchange.received += len(part)
        if exchange.received > most:
            raise _TooLongError
        await place.received(exchange.received, announced)
        parts.append(part)
    return b"".join(parts)


def refusal(status: int, line: str) -> Response:
    """An answer without answers: one line of JSON."""
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return Response(json.dumps({"error_code": _CODES[status], "message": line}), status, headers, body.JSON)
