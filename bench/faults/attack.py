"""An attack on a served model: bytes to send, and the outcomes that are allowed."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

JSON, CSV = "application/json", "text/csv"
RAW = ("image/jpeg", "image/png", "application/dicom", "application/octet-stream")
REFUSED, ANSWERED, NOTHING = "400", "200", "no answer"


@dataclass(frozen=True)
class Attack:
    """Bytes to send, and how.

    Attributes:
        data: the request.
        ends: how the client ends it: "wait" for the answer, "half" closes its half first, "leave" goes away at once,
            "slowly" sends the last bytes one by one over a few seconds and then goes away.
    """

    data: bytes
    ends: str = "wait"


@dataclass(frozen=True)
class Kind:
    """A kind of attack: how to draw one, and the outcomes that it may have."""

    draw: Callable[[Generator, str], Attack]
    allowed: tuple[str, ...] = (REFUSED,)


def post(body: bytes | str, kind: str | None = JSON, path: str = "/invocations", *lines: str) -> bytes:
    """A complete POST request."""
    body = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Content-Length: {len(body)}", *lines]
    head += [f"Content-Type: {kind}"] if kind is not None else []
    return "\r\n".join([*head, "", ""]).encode("latin-1", "replace") + body


def body(images: list[Any], **more: Any) -> str:
    """A body with these cells."""
    return json.dumps({"dataframe_records": [{"image": image} for image in images], **more})


def text(data: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(data).decode()
