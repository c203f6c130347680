"""What `/metrics` tells: every request and picture once, under labels of a small fixed set."""

import re
import time

import numpy as np
import pytest

from cxr.errors import BusyError
from cxr.imaging.decode import DecodedImage
from cxr.imaging.plausibility import implausible
from cxr.serving import reasons
from cxr.serving.ood import OODDetector
from tests.cxr.serving.application import JPEG, Told

ROWS = b'{"inputs": ["/9j/", "/9j/"]}'


def test_requests_are_counted_by_path_and_status(app):
    app.ask(data=JPEG, kind="image/jpeg")
    app.ask(data=ROWS, kind="application/json")
    app.ask(data=JPEG, kind="text/html")
    for path in ("/a", "/b", "/c?d"):
        app.ask(path, method="GET")
    assert app.metric('cxr_requests_total{path="/invocations",status="200"}') == 2
    assert app.metric('cxr_requests_total{path="/invocations",status="415"}') == 1
    assert app.metric('cxr_requests_total{path="other",status="404"}') == 3
    assert app.metric("cxr_request_seconds_count") == app.metric("cxr_request_bytes_count") == 3
    assert app.metric("cxr_request_bytes_sum") == len(JPEG) + len(ROWS)


def test_pictures_are_counted_by_what_they_were_answered(app, service):
    app.ask(data=ROWS, kind="application/json")
    service.status, service.reasons = (
        "refer",
        "unlike the training images (distance 3.1, at most 2); a colour image; new",
    )
    app.ask("/invocations?operating_point=sensitive", ROWS, "application/json")
    label = 'cxr_pictures_total{{label="virus",operating_point="{}",status="{}"}}'
    assert app.metric(label.format("argmax", "ok")) == app.metric(label.format("sensitive", "refer")) == 2
    assert app.metric(label.format("sensitive", "ok")) == 0
    for kind in reasons.KINDS:
        expected = 2 if kind in (reasons.UNLIKE, reasons.IMPLAUSIBLE) else 0
        assert app.metric(f'cxr_referrals_total{{reason="{kind}"}}') == expected


def test_the_first_answer_of_the_server_is_not_counted(app, service):
    assert service.seen and app.metric("cxr_request_seconds_count") == 0
    assert app.metric('cxr_pictures_total{label="virus",operating_point="argmax",status="ok"}') == 0


def test_what_is_being_worked_on(app, service):
    seen = []
    service.instead = lambda: seen.append(
        (app.metric("cxr_pictures_in_progress"), app.metric("cxr_requests_in_progress"))
    )
    app.ask(data=ROWS, kind="application/json")
    assert seen == [(2, 1)]
    service.instead = lambda: (_ for _ in ()).throw(BusyError("full"))
    app.ask(data=ROWS, kind="application/json")
    assert app.metric("cxr_pictures_in_progress") == app.metric("cxr_requests_in_progress") == 0


def test_what_is_served(app):
    assert app.metric('cxr_model_info{name="cxr-pneumonia",version="7"}') == 1
    assert (
        app.metric("cxr_model_loaded_timestamp_seconds") == pytest.approx(time.time(), abs=60)
        and app.metric("cxr_workers") == 1
    )


def test_labels_do_not_multiply_with_what_callers_send(app, service):
    series = len(app.ask("/metrics", method="GET").text.splitlines())
    for number in range(50):
        app.ask(f"/{number}?a={number}", method=f"M{number}", kind=f"a/{number}", **{f"x-{number}": "y"})
        app.ask(f"/invocations?operating_point=p{number}", JPEG, "image/jpeg", **{"X-Request-ID": str(number)})
        service.status, service.reasons = "refer", f"undecided (probability of pneumonia 0.{number}); x{number}"
    # /metrics itself, other paths with status 404, and nothing else
    assert len(app.ask("/metrics", method="GET").text.splitlines()) <= series + 2


def test_metrics_say_what_they_are(app):
    answer = app.ask("/metrics", method="GET")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)", answer.text, re.MULTILINE):
        assert name.startswith("cxr_") and f"# HELP {name} " in answer.text
        assert kind in ("counter", "gauge", "histogram")


def test_ready_is_503_until_a_picture_has_been_answered(make):
    service = Told()
    app = make(service)
    for path in ("/ready", "/ping/ready"):  # nginx of MLflow's container passes the second
        answer = app.ask(path, method="GET")
        assert (answer.status, answer.told["message"]) == (503, "no answer has been given yet")
    assert app.ask("/ping", method="GET").status == 200
    app.start()
    assert [app.ask(path, method="GET").status for path in ("/ready", "/ping/ready")] == [200, 200]


def test_ready_stays_503_while_the_network_is_broken(make, monkeypatch):
    service = Told()
    with monkeypatch.context() as patch:
        patch.setattr(service, "records", lambda *_, **__: 1 / 0)
        app = make(service).start()
        assert app.ask("/ready", method="GET").status == 503
        assert app.ask(data=JPEG, kind="image/jpeg").status == 500
        assert app.ask("/ready", method="GET").status == 503
    assert any("ZeroDivisionError" in line.get("trace", "") for line in app.log())
    assert app.ask(data=JPEG, kind="image/jpeg").status == 200 and app.ask("/ready", method="GET").status == 200


@pytest.fixture(scope="module")
def detector() -> OODDetector:
    parts = {"mean": np.zeros(2), "scale": np.ones(2), "directions": np.eye(2), "rest": 1.0, "far": -1.0}
    names = OODDetector.__dataclass_fields__
    made = {**dict.fromkeys(names), **{n: np.asarray(v) for n, v in parts.items() if n in names}}
    return OODDetector(**made | {"probe": np.array([0.0, 0.0, 9.0]), "inverted": np.asarray(1.0)})


def test_every_reason_that_is_given_has_a_kind(detector):
    pictures = [np.zeros((10, 900)), np.full((300, 300), 255.0), np.indices((300, 300)).sum(0) % 250]
    pictures[1][:20] = 0
    told = [reason for grey in pictures for colour in (0.0, 1.0)
            for reason in implausible(DecodedImage(grey.astype(np.uint8), "L", colour=colour))]  # fmt: skip
    assert told and {kind for reason in told for kind in reasons.kinds(reason)} == {reasons.IMPLAUSIBLE}
    far = [kind for row in detector.reasons(np.ones((1, 2)), np.array([5.0])) for kind in reasons.kinds("; ".join(row))]
    assert far == [reasons.INVERTED, reasons.UNLIKE]
    assert reasons.kinds("undecided (probability of pneumonia 0.5, between 0.4 and 0.6)") == [reasons.UNDECIDED]
