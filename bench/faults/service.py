"""The served model among hostile clients: `python -m bench.faults.service`.

Well-behaved clients ask `mlflow models serve` all the time, first alone and then beside hostile ones (see
`bench.faults.hostile`). A hostile request must be refused without a fault, without a trace in the log and without an
echo; the answers of the others must stay the same, byte for byte, and their 99th percentile under three times that of
the undisturbed server.
"""

import json
import logging
import os
import re
import socket
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Lock, Thread
from urllib.parse import urlsplit

import numpy as np
import psutil

from bench.faults import hostile
from bench.faults.common import Table, arguments
from bench.faults.hostile import KINDS, NOTHING, Attack, body, text
from bench.faults.neighbours import Neighbours, Seen, post
from bench.serve import save_model, server
from cxr.datasets import phantom
from tests.helpers import CLASSES, deployed, network

HOSTILE, SLOW = 2, 16  # hostile clients at once
SLOWER = 3.0  # how many times the undisturbed 99th percentile is allowed
SLOW_S, PAUSE_S = 3.0, 0.2  # how long a slow client goes on, and between its bytes
GROWTH = 1e9  # bytes of memory; two pictures of 50 megapixels are decoded at once, and bodies are held by six threads
ALONE_S = 4.0  # of the measurement before; longer in the full form
MAX_REQUEST_BYTES = 3_000_000
TOKEN = re.compile("zq[0-9a-f]{12}zq")


def good_bodies() -> list[str]:
    """Requests that are in order: drawn X-rays of each class at each operating point."""
    points = ("argmax", "youden", "sensitive")
    return [
        body([text(phantom.example(label, 3))], params={"operating_point": point})
        for label in CLASSES
        for point in points
    ]


def answers(port: int, requests: list[str]) -> dict[str, str]:
    """The answer to each request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    return {request: post(connection, request)[1] for request in requests}


def attack(port: int, request: Attack) -> bytes:
    """Send a request as it says, and return everything that comes back."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            steps = round(SLOW_S / PAUSE_S) if request.ends == "slowly" else 0
            connection.sendall(request.data[: len(request.data) - steps])
            for byte in request.data[len(request.data) - steps :]:
                time.sleep(PAUSE_S)
                connection.sendall(bytes([byte]))
            if request.ends == "half":
                connection.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass  # it was answered, or cut off, before all of it was sent
        try:
            while request.ends in ("wait", "half") and (part := connection.recv(65536)):
                received += part
        except ConnectionError:
            pass
    return received


class Campaign:
    """All attacks on one server."""

    def __init__(self, table: Table, port: int):
        self.table, self.port, self.peak, self._lock = table, port, 0.0, Lock()

    def run(self) -> None:
        """Every kind, the slow ones beside the others."""
        over = Event()
        watch = Thread(target=self._watch, args=(over,))
        watch.start()
        try:
            with ThreadPoolExecutor(SLOW) as slow, ThreadPoolExecutor(HOSTILE) as pool:
                for number in self.table.attempts():
                    slow.submit(self._one, "slow", number)
                    list(pool.map(lambda name, at=number: self._one(name, at), [one for one in KINDS if one != "slow"]))
        finally:
            over.set()
            watch.join()

    def _one(self, name: str, number: int) -> None:
        rng = np.random.default_rng([self.table.given.seed, list(KINDS).index(name), number])
        token = f"zq{rng.integers(2**48):012x}zq"
        try:
            answer = attack(self.port, KINDS[name].draw(rng, token))
        except OSError as error:
            answer, outcome = b"", repr(error)
        else:
            outcome = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else NOTHING
        with self._lock:
            case = self.table.case(name)
            if outcome in KINDS[name].allowed and not TOKEN.search(answer.decode("latin-1")):
                case.add(outcome)
            else:
                case.fail(
                    f"attempt {number}: {outcome}, expected {' or '.join(KINDS[name].allowed)}: {answer[-500:]!r}"
                )

    def _watch(self, over: Event) -> None:
        """Note the largest memory of the server."""
        while not over.wait(0.2):
            self.peak = max(self.peak, server_memory())


def server_memory() -> float:
    """Bytes in memory of the processes of the server."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if any("scoring_server" in word for word in process.cmdline()):
                total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def check_log(table: Table, lines: list[str]) -> None:
    """At most two lines a request, no fault, and nothing of what was sent."""
    attempts, case = sum(case.attempts for case in table.cases.values()), table.case("lines of the log")
    if len(lines) > 2 * attempts + 100:
        case.fail(f"{len(lines):,} lines for {attempts:,} requests")
    for line in lines:
        told = json.loads(line) if line.startswith("{") else {}
        if "Traceback" in line or "trace" in told or told.get("level") == "error" or TOKEN.search(line):
            case.fail(line[:300])
        else:
            case.add("one request" if "request_id" in told else "other")


def judge(table: Table, alone: Seen, beside: Seen, memory: tuple[float, float]) -> None:
    """What the well-behaved clients saw, alone and beside the others; bytes of the server before and at most."""
    case = table.case("well-behaved clients")
    case.failures += [*alone.wrong, *beside.wrong]
    case.outcomes["same answer"] = len(alone.times) + len(beside.times) - len(case.failures)
    before, among = (1000 * float(np.percentile(seen.times, 99)) for seen in (alone, beside))
    case, told = table.case("their 99th percentile"), f"{before:.0f} ms alone, {among:.0f} ms among hostile clients"
    case.add(told) if among < SLOWER * before else case.fail(f"{told}: more than {SLOWER:g} times as much")
    case, told = (
        table.case("memory of the server"),
        "{:,.0f} MB before, {:,.0f} MB at most".format(*(m / 1e6 for m in memory)),
    )
    case.add(told) if memory[1] - memory[0] < GROWTH else case.fail(f"{told}: more than {GROWTH / 1e6:,.0f} MB more")


def main() -> None:
    """Serve a small model with random weights, attack it, and print the table."""
    given = arguments(__doc__ or "", count=420, minutes=15)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="cxr-faults-") as name:
        folder = Path(name)
        made = deployed(folder, network("shufflenet_v2_x0_5"), max_request_bytes=MAX_REQUEST_BYTES)
        log = folder / "server.log"
        with server(save_model(made.folder, folder / "model", CLASSES), 1, log) as (address, _):
            port = urlsplit(address).port or 0
            wanted = answers(port, good_bodies())
            hostile.prepare(np.random.default_rng(given.seed))
            clients = Neighbours(port, wanted, folder)
            time.sleep(max(ALONE_S, 2 * given.minutes))
            alone, before = clients.stop(), server_memory()
            table = Table("Hostile requests to a served model", given)
            clients, campaign = Neighbours(port, wanted, folder), Campaign(table, port)
            campaign.run()
            judge(table, alone, clients.stop(), (before, campaign.peak))
            if answers(port, list(wanted)) != wanted:
                table.case("well-behaved clients").fail("afterwards the answers are others")
        check_log(table, log.read_text(errors="replace").splitlines())
    table.finish()


if __name__ == "__main__":
    main()
