"""The largest pictures, from many clients at once: answers or status 429, in bounded memory, and nothing dies."""

import base64
import io
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from bench.serve import save_model, server
from tests.helpers import CLASSES

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*input example")]
BOUND = 3.0e9  # bytes on two cores, of the server and of the processes that start it and decode for it; 2.5e9 were seen
SIDE = 7071  # pixels: 50 megapixels


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    assert len(buffer.getvalue()) < 20_000_000
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def bodies() -> list[str]:
    """A picture of as many bytes as are accepted, one of as many as pixels allow, and many ordinary ones."""
    rng = np.random.default_rng(0)
    noise = png(rng.integers(0, 4, (6900, 6900), dtype=np.uint8) * 60)  # 19 MB
    colour = png(np.full((SIDE, SIDE, 3), 90, np.uint8))
    small = png(rng.integers(0, 255, (900, 900), dtype=np.uint8))
    rows = [[noise], [colour], [noise, noise, noise], [small] * 64]
    return ["".join(('{"inputs": ["', '", "'.join(row), '"]}')) for row in rows]


def test_the_largest_requests_are_answered_or_refused_in_bounded_memory(served, bodies, tmp_path):
    log = tmp_path / "server.log"
    others = set(psutil.Process().children(recursive=True))  # of the suite
    with server(save_model(served.folder, tmp_path / "model", CLASSES), 1, log) as (address, _):
        peak, over = [0], threading.Event()

        def watch():
            while not over.wait(0.05):
                peak[0] = max(peak[0], memory(others))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            statuses = Counter(status for status, _ in sent(address, bodies[:3] * 6 + bodies[3:], 16))
            assert statuses.keys() <= {200, 429} and statuses[200] >= 4
            statuses = Counter()
            for status, again in sent(address, [bodies[1]] * 100, 100):
                statuses[status] += 1
                assert status != 429 or again == "1"
            assert statuses.keys() == {200, 429} and statuses.total() == 100
            assert sent(address, [bodies[0]], 1) == [(200, None)]
        finally:
            over.set()
            watcher.join()
    assert "Traceback" not in log.read_text()
    assert peak[0] < BOUND, f"{peak[0] / 1e6:,.0f} MB"


def sent(address: str, bodies: list[str], clients: int) -> list[tuple[int, str | None]]:
    """Statuses, and what each is told of when to come back."""

    def ask(body: str) -> tuple[int, str | None]:
        with requests.post(address, body, headers={"Content-Type": "application/json"}, timeout=120) as response:
            return response.status_code, response.headers.get("Retry-After")

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(ask, bodies))


def memory(others: set[psutil.Process]) -> int:
    """Bytes of the server: of the process that answers, and of those that decode for it."""
    total = 0
    for process in set(psutil.Process().children(recursive=True)) - others:
        try:
            total += process.memory_info().rss
        except psutil.Error:
            time.sleep(0)
    return total
