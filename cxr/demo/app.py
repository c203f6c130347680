"""A page on this machine: drop an X-ray or pick a sample, and see what the registered model says of it.

`application(service)` answers `GET /` with the page, `GET /samples/NAME` with drawn pictures, and `POST /answer` (the
bytes of one file) with the row that a server would give, the picture as the network sees it, and its heatmap.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from cxr.datasets import phantom
from cxr.errors import ImageError
from cxr.serving.service import Service, png

HOSTS = ["127.0.0.1", "localhost"]
_PAGE = Path(__file__).with_name("page.html")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # pictures of patients stay nowhere
}


def samples() -> dict[str, tuple[str, bytes]]:
    """Pictures to try by name, each with its words; drawn, and so nobody's."""
    found = {label: (f"drawn, as {label}", phantom.example(label, 3)) for label in ("normal", "bacteria", "virus")}
    rng = np.random.default_rng(0)
    ends = (90, 160, 255)
    hues = np.stack([np.add.outer(np.linspace(0, end, 240), np.linspace(255 - end, 0, 300)) for end in ends], -1)
    noisy = np.clip(hues + rng.normal(0, 12, hues.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "PNG")
    return {**found, "no-xray": ("no X-ray at all", buffer.getvalue())}


def application(service: Service, name: str) -> FastAPI:
    """The page for one model; `name` is what it is called in the registry."""
    app = FastAPI(title="Chest X-ray demo", docs_url=None, redoc_url=None, openapi_url=None)
    # Another site must not reach this page through a name of its own that leads to this machine.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    drawn = samples()
    facts = {
        "model": name, "version": service.version, "classes": list(service.classes), "points": service.operating_points,
        "point": service.operating_point, "abstain": service.abstain, "max_bytes": service.limits.max_bytes,
        "samples": {key: words for key, (words, _) in drawn.items()},
    }  # fmt: skip
    page = _PAGE.read_text(encoding="utf-8").replace("{{ facts }}", _embedded(facts))

    @app.get("/")
    def start() -> Response:
        return Response(page, media_type="text/html", headers=_HEADERS)

    @app.get("/samples/{key}")
    def sample(key: str) -> Response:
        if key not in drawn:
            return _told({"message": f"no sample {key[:40]!r}"}, 404)
        return Response(drawn[key][1], media_type="image/*", headers=_HEADERS)

    @app.post("/answer")
    async def answer(request: Request, operating_point: str = "") -> Response:
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > service.limits.max_bytes:
                return _told({"message": f"more than {service.limits.max_bytes:,} bytes; take a smaller file"}, 413)
        return await run_in_threadpool(_answer, service, bytes(data), operating_point)

    return app


def _answer(service: Service, data: bytes, point: str) -> Response:
    try:
        point = service.check_operating_point(point)
    except ImageError as error:
        return _told({"message": str(error)}, 400)
    row = service.read(data)
    if row.image is None:
        return _told({"message": row.error}, 400)
    answer = service.answer_rows([row], point, with_heatmap=True).iloc[0].to_dict()
    return _told({"row": answer, "picture": png(row.image.raster)})


def _told(values: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(values), status, headers=_HEADERS, media_type="application/json")


def _embedded(values: dict[str, Any]) -> str:
    """JSON that can stand inside a script element, whatever is in it."""
    return json.dumps(values).replace("<", "\\u003c")
