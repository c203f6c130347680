"""What `GET /metrics` tells, in the format of Prometheus: counts and times, nothing of a picture or a patient.

Every label has a small fixed set of values. With several processes the counts are those of all of them (see
`cxr.serving.workers`).
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from cxr.serving import reasons, workers
from cxr.serving.service import ERROR, OK, REFER, Service

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

INVOCATIONS = "/invocations"
NONE = "none"  # the label of a picture that cannot be read
_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60)
_BYTES = (1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8)
_STATUSES = (200, 400, 413, 415, 429, 499, 500, 503, 504)


@dataclass(frozen=True)
class Registered:
    """What is served: a version of a registered model."""

    name: str
    version: str


class Metrics:
    """The counts of one server. Thread-safe.

    Join `cxr.serving.workers` before one is made: it imports `prometheus_client`.

    Args:
        service: its classes and operating points are values of labels.
        registered: what is served.
        crew: the processes that count together; None for a single one.
    """

    def __init__(self, service: Service, registered: Registered, crew: workers.Crew | None = None):
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

        disable_created_metrics()  # when each count began is told by one of them
        self._crew, self._registry = crew, CollectorRegistry()
        self._known: dict[tuple[str, int], Any] = {}
        # Several processes are read from their files; in their registries, they would count twice.
        to = None if crew else self._registry
        labels = ["status", "label", "operating_point"]
        self._requests = Counter("cxr_requests", "Requests, by path and status", ["path", "status"], registry=to)
        self._pictures = Counter("cxr_pictures", "Pictures answered", labels, registry=to)
        told = "Pictures referred, by kind of reason; one may have several"
        self._referrals = Counter("cxr_referrals", told, ["reason"], registry=to)
        told = "Seconds from the head of a request for answers to the end of its answer"
        self.seconds = Histogram("cxr_request_seconds", told, buckets=_SECONDS, registry=to)
        told = "Seconds to decode a picture, the wait for a core included"
        self.decoding = Histogram("cxr_decode_seconds", told, buckets=_SECONDS, registry=to)
        told = "Seconds of a call of the network, the wait for other calls included"
        self.network = Histogram("cxr_network_seconds", told, buckets=_SECONDS, registry=to)
        told = "Bytes of the body of a request for answers"
        self.bytes = Histogram("cxr_request_bytes", told, buckets=_BYTES, registry=to)
        told = "Answers that are missing in the log of answers: its disk is full, or stands still"
        self.unlogged = Counter("cxr_unlogged_answers", told, registry=to)
        summed = partial(Gauge, multiprocess_mode="livesum", registry=to)
        self.open_requests = summed("cxr_requests_in_progress", "Requests for answers that are not answered yet")
        self._open_pictures = summed("cxr_pictures_in_progress", "Pictures being worked on")
        summed("cxr_workers", "Processes of the server").set(1)
        newest = partial(Gauge, multiprocess_mode="livemax", registry=to)
        newest("cxr_model_loaded_timestamp_seconds", "When the model was loaded").set(time.time())
        info = newest("cxr_model_info", "The registered model that is served", ["name", "version"])
        info.labels(registered.name, registered.version).set(1)
        self._start_at_zero(service)
        if crew:
            crew.reserve()

    def _start_at_zero(self, service: Service) -> None:
        """Make what is expected to be counted, so that the first of a kind is seen as an increase."""
        for status in _STATUSES:
            self._request(INVOCATIONS, status)
        points = tuple(service.operating_points)
        for values in (*product((OK, REFER), service.classes, points), *product((ERROR,), (NONE,), points)):
            self._pictures.labels(*values)
        for kind in reasons.KINDS:
            self._referrals.labels(kind)

    def answered(self, answers: list[dict[str, Any]]) -> None:
        """Count answers (see `cxr.serving.service.Service.records`)."""
        for answer in answers:
            self._pictures.labels(answer["status"], answer["label"] or NONE, answer["operating_point"]).inc()
            if answer["status"] == REFER:
                for kind in reasons.kinds(answer["reasons"]):
                    self._referrals.labels(kind).inc()

    @contextmanager
    def working(self, pictures: int) -> Iterator[None]:
        """So many pictures are being worked on."""
        self._open_pictures.inc(pictures)
        try:
            yield
        finally:
            self._open_pictures.dec(pictures)

    def request(self, path: str, status: int, seconds: float, received: int) -> None:
        """Count a request that is over; of those for answers, the seconds and the bytes of the body as well."""
        self._request(path, status).inc()
        if path == INVOCATIONS:
            self.seconds.observe(seconds)
            self.bytes.observe(received)

    def _request(self, path: str, status: int) -> Any:
        """Looking labels up takes longer than counting."""
        known = self._known.get((path, status))
        if known is None:
            known = self._known[path, status] = self._requests.labels(path, str(status))
        return known

    def text(self) -> bytes:
        """All counts, in the text format of Prometheus."""
        from prometheus_client import generate_latest

        return generate_latest(self._all())

    def _all(self) -> "CollectorRegistry":
        if self._crew is None:
            return self._registry
        from prometheus_client import CollectorRegistry, multiprocess

        self._crew.bury()
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=str(self._crew.folder))
        return registry
