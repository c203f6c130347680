"""The application behind the demo page, on which a user drops an X-ray or picks a sample.

Routes:

- `GET /`: the page.
- `GET /samples/NAME`: a sample image.
- `POST /answer` with the bytes of a file: the row that a model server would return, including the heatmap, and the
  image as the network sees it.
"""

import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from fastapi import FastAPI, Request, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from cxr.common.names import PNEUMONIA
from cxr.datasets import phantom
from cxr.errors import BusyError, ImageError
from cxr.serving.service import Service, png
from cxr.settings.classes import CLASS_NAMES

HOSTS = ["127.0.0.1", "localhost"]
_PAGE = Path(__file__).with_name("page.html")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",  # images of patients must not stay in a browser cache
}


def samples() -> dict[str, tuple[str, bytes]]:
    """Return sample images by name, each with its caption: drawn phantoms, and a colour image that is no X-ray."""
    phantoms = {label: (f"drawn: {label}", phantom.example(label, 3)) for label in ("normal", "bacteria", "virus")}
    rng = np.random.default_rng(0)
    ends = (90, 160, 255)
    hues = np.stack([np.add.outer(np.linspace(0, end, 240), np.linspace(255 - end, 0, 300)) for end in ends], -1)
    noisy = np.clip(hues + rng.normal(0, 12, hues.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "PNG")
    return {**phantoms, "no-xray": ("not an X-ray", buffer.getvalue())}


def application(service: Service, name: str) -> FastAPI:
    """Build the application for a model; `name` is its name in the registry."""
    app = FastAPI(title="Chest X-ray demo", docs_url=None, redoc_url=None, openapi_url=None)
    # Against DNS rebinding: another site must not reach this page through a host name that resolves to this machine.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    images = samples()
    facts = {
        "model": name,
        "version": service.version,
        "classes": list(service.classes),
        "finding": service.finding,
        "title": _title(service),
        "points": service.operating_points,
        "point": service.operating_point,
        "bands": service.bands,
        "max_bytes": service.limits.max_bytes,
        "samples": {key: caption for key, (caption, _) in images.items()},
    }
    page = _PAGE.read_text(encoding="utf-8").replace("{{ facts }}", _embedded(facts))

    @app.get("/")
    def start() -> Response:
        return Response(page, media_type="text/html", headers=_HEADERS)

    @app.get("/samples/{key}")
    def sample(key: str) -> Response:
        if key not in images:
            return _json_response({"message": f"no sample {key[:40]!r}; expected one of {', '.join(images)}"}, 404)
        return Response(images[key][1], media_type="image/*", headers=_HEADERS)

    @app.post("/answer")
    async def answer(request: Request, operating_point: str = "") -> Response:
        # Browsers name the page that sends a request: another site must not ask the model through this machine.
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).hostname not in HOSTS:
            return _json_response({"message": "requests of other sites are refused"}, 403)
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > service.limits.max_bytes:
                limit = f"{service.limits.max_bytes:,}"
                return _json_response({"message": f"more than {limit} bytes; choose a smaller file"}, 413)
        return await run_in_threadpool(_answer, service, bytes(data), operating_point)

    return app


def _title(service: Service) -> str:
    """The heading of the page; only of the classes of the Kermany dataset is it known that they are of children."""
    finding = service.finding.capitalize()
    kermany = service.finding == PNEUMONIA and service.classes in CLASS_NAMES.values()
    return f"{finding} on chest X-rays of children" if kermany else f"{finding} on chest X-rays"


def _answer(service: Service, data: bytes, point: str) -> Response:
    try:
        point = service.check_operating_point(point)
    except ImageError as error:
        return _json_response({"message": str(error)}, 400)
    try:
        row = service.read(data)
    except BusyError as error:
        return _json_response({"message": str(error)}, 503)
    if row.image is None:
        return _json_response({"message": row.error}, 400)
    answer = service.records_of([row], point, with_heatmap=True)[0]
    return _json_response({"row": answer, "picture": png(row.image.raster)})


def _json_response(values: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(values), status, headers=_HEADERS, media_type="application/json")


def _embedded(values: dict[str, Any]) -> str:
    """Encode values as JSON that is safe inside a script element."""
    return json.dumps(values).replace("<", "\\u003c")
