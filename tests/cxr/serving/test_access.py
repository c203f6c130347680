"""The log of the server: one line of JSON a request, its ID on every answer, nothing of a picture or a patient."""

import base64
import json
import logging
import re
import sys

import pytest

from cxr.serving.access import JsonLines, request_id
from tests.cxr.serving.application import JPEG, Told

MADE = re.compile("[0-9a-f]{16}")
DOE = "DOE^JOHN"


@pytest.mark.parametrize("given", ["a", "3f2b-9.Z_x", "x" * 64])
def test_the_id_of_a_caller_is_kept(app, given):
    answer = app.ask(data=JPEG, kind="image/jpeg", **{"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given
    assert app.log()[-1]["request_id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 65, b"a b", b"a\nb", b"\xff", b'"', b"<b>", "ä".encode()])
def test_another_id_is_replaced(given):
    assert MADE.fullmatch(request_id([(b"host", b"x"), (b"x-request-id", given)]))


def test_an_id_that_is_sent_twice_is_neither():
    assert MADE.fullmatch(request_id([(b"x-request-id", b"a"), (b"x-request-id", b"b")]))
    assert request_id([]) != request_id([])


def test_every_answer_has_an_id_and_every_request_one_line(app):
    asked = [
        ({"path": "/ping", "method": "GET"}, 200), ({"path": "/metrics", "method": "GET"}, 200),
        ({"path": "/ready", "method": "GET"}, 200), ({"path": f"/{DOE}", "method": "GET"}, 404),
        ({"method": "DELETE"}, 405), ({"data": JPEG}, 415), ({"data": b"{", "kind": "application/json"}, 400),
        ({"data": b"x" * 9000, "kind": "image/png"}, 413), ({"data": JPEG, "kind": "image/jpeg"}, 200),
    ]  # fmt: skip
    app.log()
    answers = [app.ask(**words) for words, _ in asked]
    assert [answer.status for answer in answers] == [status for _, status in asked]
    lines = app.log()
    assert [line["request_id"] for line in lines] == [answer.headers["x-request-id"] for answer in answers]
    assert [line["status"] for line in lines] == [status for _, status in asked]
    assert [line["path"] for line in lines[:4]] == ["/ping", "/metrics", "/ready", "other"]
    names = ["time", "level", "message", "request_id", "method", "path", "status", "bytes", "seconds", "pictures"]
    assert all(list(line) == names for line in lines)
    last = lines[-1]
    assert (last["method"], last["bytes"], last["pictures"]) == ("POST", len(JPEG), 1) and 0 <= last["seconds"] < 60
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", last["time"])


def test_no_line_holds_anything_of_a_picture_or_a_patient(app):
    """Whatever a caller puts into path, query, headers, method and body, answered or refused."""
    text = base64.b64encode(JPEG).decode()
    app.ask(f"/invocations?operating_point={DOE}", JPEG, "image/jpeg")
    app.ask(f"/invocations?patient={DOE}", JPEG, "image/jpeg", **{"X-Request-ID": f"{DOE} 1"})
    app.ask(f"/{DOE}", JPEG, f"image/{DOE}", method=DOE, referer=DOE, user_agent=DOE)
    app.ask("/invocations", json.dumps({"inputs": [text], DOE: 1}).encode(), "application/json")
    app.ask("/invocations", f"{DOE}\n{text}".encode(), "text/csv")
    app.service.instead = lambda: {}[f"{text * 5} of 4711"]  # a fault whose message repeats what was sent
    app.ask(data=JPEG, kind="image/jpeg")
    lines = json.dumps(app.log())
    assert "KeyError" in lines
    for secret in (DOE, text, "bytes of patient"):
        assert secret not in lines


def test_a_line_of_another_library_is_json_too_and_loses_its_long_words():
    record = logging.LogRecord("uvicorn.error", logging.WARNING, "", 1, "read %s\n%s", ("a" * 101, "b" * 100), None)
    line = json.loads(JsonLines().format(record))
    assert (line["level"], line["message"]) == ("warning", f"read (101 characters) {'b' * 100}")


def test_a_trace_has_the_causes_of_an_exception_and_is_one_line():
    try:
        try:
            raise ValueError("first")
        except ValueError as error:
            raise RuntimeError("then") from error
    except RuntimeError:
        record = logging.LogRecord("cxr", logging.ERROR, "", 1, "internal error", (), sys.exc_info())
    text = JsonLines().format(record)
    trace = json.loads(text)["trace"]
    assert "\n" not in text and trace.index("ValueError: first") < trace.index("RuntimeError: then")


def test_uvicorn_writes_no_lines_of_access_which_name_the_query(make):
    logging.getLogger("uvicorn.access").handlers = [logging.StreamHandler()]
    logging.getLogger("uvicorn.access").propagate = False
    make(Told())
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_a_fault_after_the_answer_has_begun_is_logged(app):
    async def breaking(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OSError("in the middle")

    app.app.middleware_stack = breaking
    assert app.ask(data=JPEG).status == 200
    assert "OSError: in the middle" in json.dumps(app.log())
