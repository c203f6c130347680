"""Well-behaved clients of a served model, in a light process of their own, so that what they measure is the server.

`Neighbours` starts `python -m bench.faults.neighbours PORT FILE`, which asks until its input is closed.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

CLIENTS = 4  # at once


class Seen(NamedTuple):
    """What the clients saw: seconds of each answer, and what was wrong with others."""

    times: list[float]
    wrong: list[str]


def post(connection: HTTPConnection, body: str) -> tuple[int, str]:
    """Status and text of the answer to a well-formed request."""
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read().decode()


class Neighbours:
    """Clients at work from now on, until they are stopped.

    Args:
        port: of the server on this machine.
        wanted: the answer that each body must get, byte for byte.
        folder: where these are written for the process.
    """

    def __init__(self, port: int, wanted: dict[str, str], folder: Path):
        file = folder / "wanted.json"
        file.write_text(json.dumps(wanted))
        words = [sys.executable, "-m", "bench.faults.neighbours", str(port), str(file)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop(self) -> Seen:
        """End them; what they saw."""
        told, _ = self._process.communicate("", timeout=120)
        return Seen(**json.loads(told))


def ask(port: int, wanted: dict[str, str], ended: Event) -> Seen:
    """Ask from several threads until `ended`, and compare every answer with the one that is wanted."""
    seen, bodies = Seen([], []), list(wanted)

    def work(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        while not ended.is_set():
            body, number = bodies[number % len(bodies)], number + 1
            started = time.perf_counter()
            try:
                status, answer = post(connection, body)
            except (OSError, HTTPException) as error:
                seen.wrong.append(f"no answer: {error!r}")
                connection.close()
                continue
            seen.times.append(time.perf_counter() - started)
            if status != 200 or answer != wanted[body]:
                seen.wrong.append(f"status {status}, {answer[:300]!r} instead of {wanted[body][:300]!r}")

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(work, range(CLIENTS)))
    return seen


def main() -> None:
    """Ask until the input is closed, and print what was seen as JSON."""
    port, file = int(sys.argv[1]), Path(sys.argv[2])
    ended = Event()
    Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    print(json.dumps(ask(port, json.loads(file.read_text()), ended)._asdict()))


if __name__ == "__main__":
    main()
