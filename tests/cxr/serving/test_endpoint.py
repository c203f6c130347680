"""One endpoint for all forms of a request: the same answers, one line for what goes wrong, and whose fault it was."""

import base64
import io
import json
import re
import time

import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from pyarrow import parquet

from cxr.errors import BusyError, CxrError, ImageError
from cxr.serving.service import MEASURED, Service
from tests.cxr.serving.application import JPEG, Told

JSON = "application/json"
ROWS = json.dumps({"dataframe_records": [{"image": base64.b64encode(JPEG).decode()}]}).encode()
SECRET = "4711"  # noqa: S105  # what nobody may repeat


def raising(error):
    def instead():
        raise error

    return instead


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "image/png", "IMAGE/Whatever", "application/dicom; transfer-syntax=*",
             "application/octet-stream", "image/jpeg; charset=x"]
)  # fmt: skip
def test_a_picture_as_it_is_gets_the_answer_of_its_row_in_json(app, service, kind):
    whole = app.ask(data=ROWS, kind=JSON)
    raw = app.ask(data=[JPEG[:7], JPEG[7:]], kind=kind)
    assert raw.status == whole.status == 200 and raw.text == whole.text
    assert service.seen[-1] == service.seen[-2] and service.seen[-1][0] == [JPEG]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/invocations?operating_point=sensitive&heatmap=true&strict=false", {}),
        ("/invocations", {"X-Operating-Point": "sensitive", "X-Heatmap": "1", "x-strict": "FALSE"}),
        ("/invocations?heatmap=1", {"X_Operating_Point": "sensitive", "X_Strict": "0"}),
    ],
)
@pytest.mark.parametrize("data, kind", [(JPEG, "image/jpeg"), (ROWS, JSON), (b"image\nQk0=\n", "text/csv")])
def test_parameters_may_stand_in_the_query_or_in_headers(app, service, path, headers, data, kind):
    assert app.ask(path, data, kind, **headers).status == 200
    assert service.seen[-1][1] == {"point": "sensitive", "with_heatmap": True, "strict": False, "measured": False}


@pytest.mark.parametrize(
    ("path", "headers", "words"),
    [
        (f"/invocations?stric={SECRET}", {}, "query: expected operating_point, heatmap, strict and no others"),
        (f"/invocations?strict={SECRET}", {}, "strict as query or header: expected true or false"),
        ("/invocations?strict=1&strict=1", {}, "strict is given twice"),
        ("/invocations?strict=1", {"X-Strict": "1"}, "strict is given twice"),
        ("/invocations", {"X-Heatmap": SECRET}, "heatmap as query or header: expected true or false"),
        ("/invocations?operating_point=unknown", {}, "unknown operating_point; expected one of"),
    ],
)
def test_wrong_parameters_are_the_callers_in_one_line(app, path, headers, words):
    answer = app.ask(path, JPEG, "image/jpeg", **headers)
    assert answer.status == 400 and answer.told["message"].startswith(words)
    assert SECRET not in answer.text and SECRET not in json.dumps(app.log())


def test_a_parameter_in_the_body_and_beside_it_is_refused(app):
    body = json.dumps({"inputs": [], "params": {"strict": True}}).encode()
    assert app.ask("/invocations?strict=1", body, JSON).told["message"].startswith("strict is given twice")
    assert app.ask("/invocations?heatmap=1", body, JSON).status == 200


@pytest.mark.parametrize("kind", [None, "", "text/html", SECRET, "application/json; x=1", "text/csv; charset=utf-16"])
def test_other_content_types_are_refused_before_the_body_is_read(app, service, kind):
    answer = app.ask(data=JPEG, kind=kind)
    assert answer.status == 415 and answer.told["message"].startswith("the content type must be application/json")
    [line] = [line for line in app.log() if line.get("path") == "/invocations"]
    assert line["bytes"] == 0 and SECRET not in json.dumps(line) + answer.text


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("kind, most", [("image/jpeg", 3000), (JSON, 9000)])
def test_no_more_of_a_body_is_read_than_allowed(app, kind, most, declared):
    parts = [b"x" * 400] * 40
    answer = app.ask(data=parts, kind=kind, **({"content-length": "16000"} if declared else {}))
    assert answer.status == 413 and answer.told["message"].startswith(f"more than {most:,} bytes in one ")
    [line] = [line for line in app.log() if line.get("path") == "/invocations"]
    assert line["bytes"] == (0 if declared else 400 * (most // 400 + 1))


def test_a_picture_that_cannot_be_read_is_as_strict_as_its_row(app, service):
    service.instead = raising(ImageError("row 0: the file is empty"))
    answers = [app.ask(data=data, kind=kind) for data, kind in ((b"", "image/png"), (ROWS, JSON))]
    assert [(a.status, a.told["message"]) for a in answers] == [(400, "row 0: the file is empty")] * 2


def test_text_that_is_sent_as_a_picture_is_not_taken_for_base64(app, service):
    app.ask(data=base64.b64encode(JPEG), kind="image/jpeg")
    assert service.seen[-1][0] == [base64.b64encode(JPEG)]


class FullError(BusyError):
    status = 429


@pytest.mark.parametrize("error, status", [(BusyError("come back"), 503), (FullError("come back"), 429)])
def test_no_capacity_has_a_status_of_its_own(app, service, error, status):
    service.instead = raising(error)
    answer = app.ask(data=JPEG, kind="image/jpeg")
    assert (answer.status, answer.told["message"]) == (status, "come back") and answer.headers["retry-after"] == "1"


def test_a_request_that_takes_too_long_gets_504(make):
    service = Told()
    service.instead = lambda: time.sleep(0.5)
    answer = make(service, 0.1).start().ask(data=JPEG, kind="image/jpeg")
    assert answer.status == 504 and answer.told["message"].startswith("not answered within 0.1 s")


FAULTS = [
    ValueError(SECRET * 50), RuntimeError("the network"), CxrError("not finite"), MemoryError(),
    MlflowException("bad", error_code=1000), TimeoutError("of a disk"), KeyError(base64.b64encode(JPEG * 20)),
]  # fmt: skip


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["network", "answer", "middleware", "count", "threads"])
def test_a_fault_of_ours_is_logged_with_its_trace_and_answered_with_500(make, monkeypatch, where, error):
    service, fail = Told(), raising(error)
    if where == "answer":
        monkeypatch.setattr("cxr.serving.endpoint.Invocations._passed_on", lambda *_: fail())
    app = make(service).start()
    patch = pytest.MonkeyPatch()
    if where == "network":
        service.instead = fail
    elif where == "middleware":
        patch.setattr(app.app, "middleware_stack", lambda *_: fail())
    elif where == "count":
        monkeypatch.setattr("cxr.serving.metrics.Metrics.answered", lambda *_: fail())
    elif where == "threads":
        patch.setattr("asyncio.to_thread", lambda *_: fail())
    app.log()
    answer = app.ask(data=JPEG, kind="image/jpeg", **{"X-Request-ID": "mine.1"})
    patch.undo()
    assert answer.status == 500 and answer.headers["x-request-id"] == "mine.1"
    assert answer.told == {
        "error_code": "INTERNAL_ERROR",
        "message": "internal error; the log of the server has its trace, request ID mine.1",
    }
    lines = app.log()
    [fault], [request] = ([line for line in lines if line["level"] == level] for level in ("error", "info"))
    assert fault["request_id"] == request["request_id"] == "mine.1" and request["status"] == 500
    assert f"{type(error).__name__}: " in fault["trace"] and "test_endpoint.py" in fault["trace"]
    assert SECRET * 50 not in json.dumps(lines) and base64.b64encode(JPEG).decode() not in json.dumps(lines)
    assert app.metric('cxr_requests_total{path="/invocations",status="500"}') == 1


def test_answers_are_the_json_that_mlflow_writes_of_the_same_table(make, served):
    service = Service(served.folder, threads=1, version="7")
    files = [file.read_bytes() for file in served.manifest.split("val").files()[:2]]
    rows = [{"image": base64.b64encode(data).decode()} for data in (*files, b"none")]
    data = json.dumps({"dataframe_records": rows, "params": {"heatmap": True, "strict": False}}).encode()
    wanted = io.StringIO()
    scoring_server.predictions_to_json(service.answer([*files, b"none"], with_heatmap=True, strict=False), wanted)
    assert make(service).start().ask(data=data, kind=JSON).text == wanted.getvalue()


def test_every_table_of_answers_passes_those_who_listen(make):
    service, heard = Told(), []
    app = make(service).start()
    invocations = next(r.endpoint.__self__ for r in app.app.routes if getattr(r, "path", "") == "/invocations")
    invocations.listeners += [lambda *_: 1 / 0, lambda table, request_id: heard.append((table, request_id))]
    answer = app.ask(data=JPEG, kind="image/jpeg", **{"X-Request-ID": "a"})
    [(table, request_id)] = heard
    assert request_id == "a" and list(table["distance"]) == [2] and not [c for c in MEASURED if c in answer.text]
    assert answer.status == 200  # whoever listens and fails takes the answer from nobody
    assert "ZeroDivisionError" in json.dumps(app.log())


def test_the_log_of_answers_is_kept_if_it_is_asked_for(make, monkeypatch, tmp_path):
    monkeypatch.setenv("CXR_ANSWERS", str(tmp_path / "answers"))
    app = make(Told())
    assert app.ask(data=JPEG, kind="image/jpeg", **{"X-Request-ID": "mine"}).status == 200
    app.start()  # and end, which writes what waits
    [file] = (tmp_path / "answers").rglob("*.parquet")
    assert parquet.read_table(file)["request_id"].to_pylist() == ["mine"]


def test_health_and_the_rest_of_mlflows_paths_are_as_they_were(app):
    assert app.ask("/ping", method="GET").status == app.ask("/health", method="GET").status == 200
    assert re.fullmatch(r"\d+\.\d+\.\d+", app.ask("/version", method="GET").text)
    assert app.ask("/invocations", method="GET").status == 405 and app.ask("/x", method="GET").status == 404
