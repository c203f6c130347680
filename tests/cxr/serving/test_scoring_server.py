"""MLflow's own server with our model in it: faults are ours and logged, clients that go away cost nothing."""

import base64
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from cxr.serving.service import columns
from tests.cxr.serving.servers import BREAKABLE, Server, running, save
from tests.helpers import CLASSES, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*input example"),
    pytest.mark.xdist_group("scoring_server"),
]


@pytest.fixture(scope="module")
def model(served, tmp_path_factory):
    return save(served, tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def server(model) -> Iterator[Server]:
    with running(model, BREAKABLE) as made:
        yield made


@pytest.fixture(scope="module")
def picture(served) -> bytes:
    return served.manifest.split("val").files()[0].read_bytes()


@pytest.fixture(scope="module")
def body(picture) -> dict:
    return {"dataframe_records": [{"image": base64.b64encode(picture).decode()}]}


def test_a_picture_as_it_is_gets_the_answer_of_its_row_in_json(server, served):
    for file in served.manifest.split("val").files()[:5]:
        data = file.read_bytes()
        row = {"dataframe_records": [{"image": base64.b64encode(data).decode()}]}
        params = {"operating_point": "sensitive", "heatmap": True}
        assert server.send_picture(data).json() == server.ask(row).json()
        asked = server.send_picture(data, "?operating_point=sensitive&heatmap=true")
        assert asked.json() == server.ask(row | {"params": params}).json()
        assert asked.json()["predictions"][0]["operating_point"] == "sensitive"


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed (Debian: apt install curl)")
def test_curl_sends_a_file_as_it_is(server, picture, tmp_path):
    (tmp_path / "xray.jpeg").write_bytes(picture)
    words = ["curl", "-s", "--data-binary", "@xray.jpeg", "-H", "Content-Type: image/jpeg"]
    told = subprocess.run([*words, f"{server.root}/invocations"], cwd=tmp_path, capture_output=True, check=True)
    assert list(json.loads(told.stdout)["predictions"][0]) == columns(CLASSES, "pneumonia")


def test_what_is_no_picture_is_refused_or_a_row(server):
    bad = {"dataframe_records": [{"image": base64.b64encode(b"no picture").decode()}], "params": {"strict": False}}
    strict = server.send_picture(b"no picture")
    assert strict.status_code == 400 and strict.json()["message"].startswith("row 0: not an image in a known format")
    loose = server.send_picture(b"no picture", **{"X-Strict": "false"})
    assert loose.status_code == 200 and loose.json() == server.ask(bad).json()
    assert loose.json()["predictions"][0]["status"] == "error"


def test_a_fault_of_the_network_has_status_500_and_its_trace_is_in_the_log_only(server, body, picture):
    assert server.ask(body).status_code == 200
    before = len(server.log())
    (server.folder / "broken").touch()
    try:
        responses = [server.ask(body), server.send_picture(picture)]
    finally:
        (server.folder / "broken").unlink()
    faults = [line for line in server.lines(before) if line["level"] == "error"]
    for response, fault in zip(responses, faults, strict=True):
        assert response.status_code == 500
        given = response.headers["X-Request-ID"]
        assert response.json()["message"] == f"internal error; the log of the server has its trace, request ID {given}"
        assert fault["request_id"] == given and fault["trace"].endswith("RuntimeError: a secret of the machine")
    assert body["dataframe_records"][0]["image"][:100] not in server.log()
    assert server.ask(body).status_code == 200


def test_metrics_of_a_running_server(server, picture):
    name = 'cxr_requests_total{path="/invocations",status="200"}'
    before = {line: server.metric(line) for line in (name, "cxr_decode_seconds_count", "cxr_network_seconds_count")}
    for _ in range(3):
        server.send_picture(picture)
    assert {line: server.metric(line) - value for line, value in before.items()} == dict.fromkeys(before, 3)
    assert server.metric('cxr_model_info{name="cxr-pneumonia",version="7"}') == 1
    assert server.get("/ready").status_code == server.get("/ping/ready").status_code == 200
    assert server.get("/ping/metrics").text.splitlines()[0] == server.get("/metrics").text.splitlines()[0]


def test_a_client_that_goes_away_leaves_no_trace(server, body):
    text = json.dumps(body).encode()
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    before = len(server.log())
    for sent in (
        head + b"Content-Length: %d\r\n\r\n" % len(text) + text[:-10],
        head + b"Content-Length: %d\r\n\r\n" % len(text),
        head + b"Transfer-Encoding: chunked\r\n\r\n1000\r\nabc",
        head,
        b"POST /invoc",
    ):
        for _ in range(10):
            server.send(sent)
    assert list(server.ask(body).json()["predictions"][0]) == columns(CLASSES, "pneumonia")
    lines = server.lines(before)
    assert len(lines) == len(server.log()[before:].splitlines()) <= 51
    assert not [line for line in lines if line["level"] != "info"]
    assert {line["status"] for line in lines} == {499, 200}
    assert server.metric("cxr_requests_in_progress") == 0


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", ["application/json", "image/jpeg"])
def test_a_body_over_the_limit_gets_413(server, body, chunked, kind):
    text = (json.dumps(body) + " " * 200_000).encode()
    parts = iter([text[:150_000], text[150_000:]])
    response = requests.post(
        f"{server.root}/invocations", data=parts if chunked else text, headers={"Content-Type": kind}, timeout=60
    )
    assert response.status_code == 413 and response.headers["X-Request-ID"]
    assert response.json()["message"].startswith("more than 200,000 bytes in one ")
    started = time.monotonic()
    assert server.ask(body).status_code == 200 and time.monotonic() - started < 30


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_server_that_is_told_to_stop_finishes_what_it_has_begun(model, picture):
    """A request in flight is answered, another connection is refused, and the exit status is 0."""
    answers: list[requests.Response] = []
    (model.parent / "running").unlink(missing_ok=True)
    with running(model, BREAKABLE) as server:
        (model.parent / "slow").touch()
        try:
            waiting = threading.Thread(target=lambda: answers.append(server.send_picture(picture)))
            waiting.start()
            wait_for((model.parent / "running").exists)
            server.process.terminate()
            wait_for(lambda: refuses_connections(server.port))
            assert server.process.poll() is None and not answers
        finally:
            (model.parent / "slow").unlink()
        waiting.join(60)
        assert server.process.wait(60) == 0
    assert answers[0].status_code == 200 and answers[0].json()["predictions"][0]["status"] in ("ok", "refer")


def test_a_client_that_never_ends_its_request_does_not_keep_a_server_from_stopping(model):
    with running(model, MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT="2") as server:
        head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nabc"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head)
            time.sleep(0.5)
            started = time.monotonic()
            assert server.stop() == 0 and time.monotonic() - started < 15
            assert connection.recv(65536).startswith(b"HTTP/1.1 504 ")


def test_a_server_whose_network_is_broken_is_not_ready(model, picture):
    (model.parent / "broken").touch()
    try:
        with running(model, BREAKABLE) as server:
            assert server.get("/ping").status_code == 200 and server.get("/ready").status_code == 503
            [fault] = [line for line in server.lines() if line["level"] == "error"]
            assert fault["message"].startswith("the first answer failed") and "a secret" in fault["trace"]
            (model.parent / "broken").unlink()
            assert server.send_picture(picture).status_code == 200 and server.get("/ready").status_code == 200
    finally:
        (model.parent / "broken").unlink(missing_ok=True)
