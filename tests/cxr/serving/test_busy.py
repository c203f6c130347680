"""DICOM files that take long keep nobody else waiting."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from cxr.errors import BusyError, OverloadedError
from cxr.imaging import decode
from cxr.imaging.dicom_pool import Pool
from cxr.serving import service as service_module
from cxr.serving.mlflow_model import Refused, ServedModel
from cxr.serving.request import COLUMN
from cxr.serving.service import OK, REFER, Service
from tests.cxr.imaging.test_dicom import NOISE, file_of
from tests.helpers import png


def test_other_images_are_read_while_dicom_files_take_long(served, monkeypatch):
    service, ready, go_on = Service(served.folder, threads=2), threading.Semaphore(0), threading.Event()

    def hanging(*_):
        ready.release()
        assert go_on.wait(60)
        raise BusyError("no capacity")

    monkeypatch.setattr(decode.POOL, "read", hanging)
    picture = png(np.random.default_rng(0).integers(0, 255, (80, 80), dtype=np.uint8))
    with ThreadPoolExecutor(2) as caller:
        waiting = caller.submit(service.answer, [file_of(NOISE)] * 20)
        try:
            assert ready.acquire(timeout=60) and ready.acquire(timeout=60)
            for images in ([picture], [picture] * 3):
                answer = caller.submit(service.answer, images)
                assert set(answer.result(timeout=30)["status"]) <= {OK, REFER}
            assert not waiting.done()
        finally:
            go_on.set()
        with pytest.raises(BusyError, match="no capacity"):
            waiting.result()


def test_a_batch_waits_for_dicom_files_as_long_as_it_takes_and_a_server_does_not(served, monkeypatch):
    monkeypatch.setattr(service_module, "WAIT_S", 0.2)
    pool, go_on = Pool(1), threading.Event()
    monkeypatch.setattr(decode, "POOL", pool)
    pool._turns.submit(go_on.wait, 60)  # damaged files before these
    batch, server = Service(served.folder, threads=2), Service(served.folder, threads=2, waiting=3)
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(batch.answer, [file_of(NOISE)] * 3, strict=False)
        try:
            with pytest.raises(OverloadedError, match="other DICOM files are being decoded, for more than 0.2 s"):
                server.answer([file_of(NOISE)])
            assert not waiting.done()
        finally:
            go_on.set()
        assert set(waiting.result(60)["status"]) <= {OK, REFER}


def test_a_request_that_finds_no_capacity_is_answered_with_status_503():
    class Full:
        def answer(self, *_, **__):
            raise BusyError("come back later")

    model = ServedModel()
    model.service = Full()
    with pytest.raises(Refused) as caught:
        model.predict(None, pd.DataFrame({COLUMN: ["YQ=="]}))
    assert (caught.value.line, caught.value.status) == ("come back later", 503)
