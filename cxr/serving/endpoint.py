"""Around the endpoint that reads a request's body: a limit on the body, and quiet if the client goes away."""

import json
from collections.abc import Awaitable, Callable
from functools import wraps

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive

Endpoint = Callable[[Request], Awaitable[Response]]
_CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody is left to read it


class _BodyTooLongError(Exception):
    pass


def guarded(endpoint: Endpoint, max_bytes: int) -> Endpoint:
    """The endpoint, with status 413 for a body of more than `max_bytes`, of which no more is kept in memory.

    A client that goes away before its request is complete causes no error; there is nobody to answer.
    """

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            return _too_long(max_bytes)
        try:
            return await endpoint(Request(request.scope, _limited(request.receive, max_bytes)))
        except _BodyTooLongError:
            return _too_long(max_bytes)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)

    return answer


def _limited(receive: Receive, max_bytes: int) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise _BodyTooLongError
        return message

    return limited


def _too_long(max_bytes: int) -> Response:
    told = {"error_code": "BAD_REQUEST", "message": f"more than {max_bytes:,} bytes in one request; send fewer images"}
    return Response(json.dumps(told), 413, media_type="application/json")
