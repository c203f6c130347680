"""The network behind an engine: each image goes through it by itself, whatever is asked for beside it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.serving.engines import open_session
from cxr.serving.service import MODEL
from cxr.serving.session import Session

RASTERS = np.random.default_rng(0).integers(0, 256, (7, 64, 64), dtype=np.uint8)
ENGINES = ["onnxruntime", *(["openvino"] if find_spec("openvino") else [])]


@pytest.fixture(scope="module", params=ENGINES)
def session(request, served):
    return open_session(request.param, served.folder / MODEL, 2, 64)


def test_an_answer_depends_on_no_other_image_and_on_no_other_call(session):
    alone = [session.run(raster[None]) for raster in RASTERS]
    together = session.run(RASTERS)
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda i: session.run(RASTERS[i % 7][None]), range(28)))
    for i, answer in enumerate(alone):
        for others in ([part[i : i + 1] for part in together], at_once[i], at_once[i + 21]):
            for part, other in zip(answer, others, strict=True):
                assert part.dtype == other.dtype == np.float32
                np.testing.assert_allclose(part, other, rtol=0, atol=1e-6)


def test_calls_at_once_have_one_thread_each_and_are_no_more_than_the_cores(served, monkeypatch):
    session = Session(served.folder / MODEL, 2, 64)
    running, seen, lock, answer = [], [], threading.Lock(), session._answer

    def watched(raster, threads):
        with lock:
            running.append(threads)
            seen.append(tuple(running))
        try:
            return answer(raster, threads)
        finally:
            with lock:
                running.remove(threads)

    monkeypatch.setattr(session, "_answer", watched)
    session.run(RASTERS[:1])
    assert seen == [(2,)]
    seen.clear()
    session.run(RASTERS)
    assert len(seen) == 7 and set(seen) <= {(1,), (1, 1)}


def test_a_damaged_network_is_one_line(tmp_path):
    (tmp_path / MODEL).write_bytes(b"no network")
    with pytest.raises(CxrError, match=r"^the network cannot be loaded \(.*\); register the model again$"):
        Session(tmp_path / MODEL, 2, 64)
