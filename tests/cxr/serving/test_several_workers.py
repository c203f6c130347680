"""Several processes of one server are counted together, those that were killed included; the last one tidies up."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.cxr.serving.servers import running, save
from tests.helpers import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*input example")]
ANSWERED = 'cxr_requests_total{path="/invocations",status="200"}'


def test_processes_of_a_server_count_together(served, tmp_path):
    picture = served.manifest.split("val").files()[0].read_bytes()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    model = save(served, tmp_path)
    with running(model, workers=2, TMPDIR=str(temporary)) as server:
        [folder] = temporary.glob("cxr-metrics-*-*")
        workers = {int(mark.stem) for mark in folder.glob("*.alive")}
        assert workers <= {child.pid for child in psutil.Process(server.process.pid).children()} and len(workers) == 2
        for _ in range(40):  # each in a connection of its own, which one of the two accepts
            assert server.send_picture(picture).status_code == 200
        assert {server.metric(ANSWERED) for _ in range(10)} == {40}  # whoever is asked
        assert {server.metric("cxr_workers") for _ in range(10)} == {2}
        assert server.metric("cxr_decode_seconds_count") == server.metric("cxr_network_seconds_count") == 40
        assert server.metric('cxr_model_info{name="cxr-pneumonia",version="7"}') == 1
        killed = min(workers)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(killed))
        wait_for(lambda: server.metric("cxr_workers") == 1)
        assert server.metric(ANSWERED) == 40
        wait_for(lambda: server.log().count("startup complete") == 3, 240)  # uvicorn has started another
        wait_for(lambda: server.metric("cxr_workers") == 2)
        assert server.send_picture(picture).status_code == 200 and server.metric(ANSWERED) == 41
        assert server.stop() == 0
    assert [file.name for file in Path(temporary).iterdir()] == [f"cxr-metrics-{os.getuid()}.lock"]
