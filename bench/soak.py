"""A served model at full load for an hour: `python -m bench.soak`, or `--seconds 30` for a look.

`mlflow models serve` is sent good, bad, huge and slow requests at once. In between, the files of its model are replaced
by those of another one, which must not show until it is restarted, again and again. What is promised:

- statuses: 200 for pictures in order, 4xx for bad ones, 200 or 429 for huge ones; 503 or no connection only while the
  server is restarted, and never another 5xx;
- answers: of every picture the probabilities that the evaluation computes from its file, within 1e-4;
- memory: in the last third of the life of each server at most 5 % more than in the second third, medians of both;
- times: the 99th percentile of requests with one picture, and of those with several, is at most twice their median;
  those that were under way during a restart or in the first seconds after it do not count.

Of a run of less than ten minutes, memory and times are shown, but not judged.
"""

import argparse
import base64
import io
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from threading import Event, Lock, Thread
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from bench.faults.service import server_memory
from bench.serve import JPEG, JSON, save_model, server
from cxr.datasets import phantom
from cxr.evaluation.predictor import Predictor
from cxr.imaging.reader import ImageReader
from cxr.serving.body import KINDS
from cxr.serving.probabilities import softmax
from tests.helpers import CLASSES, Deployed, deployed, network

JUDGED_S = 600  # shorter runs show memory and times, and judge neither
SETTLED_S = 3.0  # after a start, until times count
TOLERANCE = 1e-4  # between probabilities
GROWTH, SPREAD = 1.05, 2.0  # of memory; of the 99th percentile over the median
ONE, MANY, BAD, HUGE, SLOW = "one picture", "several pictures", "bad", "huge", "slow"
CLIENTS = {ONE: 4, MANY: 1, BAD: 1, HUGE: 1, SLOW: 2}
TIMED = (ONE, MANY)
ALLOWED = {ONE: {200}, MANY: {200}, BAD: {400, 413, 415}, HUGE: {200, 429}, SLOW: {200, 400}}
AWAY = "no connection"  # or one that ends without an answer


@dataclass(frozen=True)
class Request:
    """What to send: a body, its content type, and the numbers of the pictures in it, whose answers are known."""

    body: bytes
    kind: str = JSON
    pictures: tuple[int, ...] = ()


@dataclass
class State:
    """What all clients and the main thread share."""

    wanted: list[np.ndarray]  # probabilities of every picture, by model
    port: int = 0
    model: int = 0
    life: int = 0
    up_since: float = float("inf")  # infinity while the server is restarted
    over: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)
    statuses: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory: list[tuple[int, float, float]] = field(default_factory=list)  # life, seconds since its start, bytes
    broken: list[str] = field(default_factory=list)

    def note(self, kind: str, status: str, *, broken: str = "") -> None:
        """Count a request, and what it has broken of the promises."""
        with self.lock:
            self.statuses[kind][status] += 1
            if broken:
                self.broken.append(f"{kind}: {broken}")


def lives(seconds: float) -> int:
    """Servers one after the other."""
    return 4 if seconds >= JUDGED_S else 2


def xrays(count: int = 8) -> list[bytes]:
    """JPEG files of drawn X-rays with 1 to 2 megapixels."""
    made, rng = [], np.random.default_rng(0)
    for number, side in enumerate(np.linspace(1000, 1414, count).astype(int)):
        drawn = Image.open(io.BytesIO(phantom.example(CLASSES[number % 3], number)))
        large = np.asarray(drawn.convert("L").resize((side, side), Image.Resampling.BICUBIC), float)
        buffer = io.BytesIO()
        grain = np.clip(large + rng.normal(0, 3, large.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grain).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def table(pictures: list[bytes]) -> bytes:
    """The JSON of a request."""
    return json.dumps({"inputs": [base64.b64encode(data).decode() for data in pictures]}).encode()


def requests_of_each_kind(files: list[bytes]) -> dict[str, list[Request]]:
    """What each kind of client sends in turn."""
    huge = io.BytesIO()
    Image.fromarray(np.full((7000, 7100), 80, np.uint8)).save(huge, "PNG")
    ones = [Request(table([data]), JSON, (number,)) for number, data in enumerate(files)]
    bad = [b"", b"{", b'{"inputs": [1]}', b"[" * 10_000, table([b"\xff\xd8" + bytes(5000)]), table([files[0][:9000]])]
    if "image/*" in str(KINDS):
        ones += [Request(data, JPEG, (number,)) for number, data in enumerate(files)]
    return {
        ONE: ones,
        MANY: [Request(table(files), JSON, tuple(range(len(files))))],
        BAD: [*(Request(body) for body in bad), Request(b"a,b\n1,2", "text/csv"), Request(files[0], "text/plain")],
        HUGE: [Request(table([huge.getvalue()]))],
        SLOW: ones[:1],
    }


def evaluated(made: Deployed, files: list[bytes]) -> np.ndarray:
    """Probabilities (n, C) of the files as `evaluate` computes them."""
    predictor = Predictor(made.bundle)
    rasters = np.stack([ImageReader(predictor.spec).raster(data) for data in files])
    return softmax(predictor.logits(rasters) / made.bundle.temperature)


def ask(state: State, kind: str, requests: list[Request]) -> None:
    """Send the requests of a kind one after the other, until the end, and judge every answer."""
    number = 0
    while not state.over.is_set():
        request, number = requests[number % len(requests)], number + 1
        before = (state.up_since, state.model)
        if before[0] == float("inf"):
            time.sleep(0.05)
            continue
        started = time.monotonic()
        status, answer = exchanged(state.port, request, slowly=kind == SLOW)
        seconds = time.monotonic() - started
        if (state.up_since, state.model) != before:  # the server went away meanwhile
            fine = status in (AWAY, "503") or int(status) in ALLOWED[kind]
            state.note(
                kind, f"{status} at a restart", broken="" if fine else f"{status} at a restart: {answer[:200]!r}"
            )
            continue
        if status == AWAY or int(status) not in ALLOWED[kind]:
            state.note(kind, status, broken=f"{status}: {answer[:200]!r}")
            continue
        wrong = judged(json.loads(answer), request, state.wanted[before[1]]) if status == "200" else ""
        state.note(kind, status, broken=wrong)
        if started - before[0] > SETTLED_S and status == "200":
            with state.lock:
                state.times[kind].append(seconds)


def judged(answer: dict, request: Request, wanted: np.ndarray) -> str:
    """What is wrong with an answer; empty if it is that of the evaluation."""
    rows = answer["predictions"]
    for row, number in zip(rows, request.pictures, strict=False):
        found = np.array([row[f"probability_{name}"] for name in CLASSES])
        difference = float(np.abs(found - wanted[number]).max())
        if difference > TOLERANCE:
            return f"picture {number}: probabilities differ by {difference:.1e}"
    return f"{len(rows)} rows" if request.pictures and len(rows) != len(request.pictures) else ""


def exchanged(port: int, request: Request, *, slowly: bool) -> tuple[str, bytes]:
    """Status and body of the answer; `AWAY` without one."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.putrequest("POST", "/invocations")
        connection.putheader("Content-Type", request.kind)
        connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders()
        step = max(1, len(request.body) // 10 if slowly else len(request.body))
        for start in range(0, len(request.body), step):
            connection.send(request.body[start : start + step])
            time.sleep(0.2 if slowly else 0)
        response = connection.getresponse()
        return str(response.status), response.read()
    except (OSError, HTTPException):
        return AWAY, b""
    finally:
        connection.close()


def watch(state: State) -> None:
    """Note the memory of the server."""
    while not state.over.wait(0.5):
        up, life = state.up_since, state.life
        if up < time.monotonic():
            state.memory.append((life, time.monotonic() - up, server_memory()))


def soak(state: State, sources: list[Path], folder: Path, seconds: float) -> None:
    """Serve the models in turn, each from the folder of the one before it."""
    served = folder / "model"
    shutil.copytree(sources[0], served)
    for life in range(lives(seconds)):
        with server(served, 1, folder / f"server{life}.log") as (address, _):
            state.port, state.model, state.life = urlsplit(address).port or 0, life % len(sources), life
            state.up_since = time.monotonic()
            time.sleep(seconds / lives(seconds) / 2)
            fresh = folder / "fresh"
            shutil.copytree(sources[(life + 1) % len(sources)], fresh)
            shutil.rmtree(served)
            fresh.rename(served)
            time.sleep(seconds / lives(seconds) / 2)
            state.up_since = float("inf")
    state.over.set()


def verdicts(state: State, seconds: float) -> list[tuple[str, str, bool]]:
    """Rows of the table: what, how it was, and whether the promise was kept."""
    rows = [(f"statuses: {kind}", ", ".join(f"{n:,} x {s}" for s, n in state.statuses[kind].most_common()),
             not any(line.startswith(f"{kind}:") for line in state.broken)) for kind in CLIENTS]  # fmt: skip
    short = seconds < JUDGED_S
    for kind in TIMED:
        times = state.times[kind] or [float("nan")]
        half, high = median(times), float(np.percentile(times, 99))
        told = f"median {1000 * half:.0f} ms, 99 % {1000 * high:.0f} ms, {len(times) / seconds:.1f} /s"
        rows.append((f"times: {kind}", told, short or high <= SPREAD * half))
    for life in range(lives(seconds)):
        mine = [(at, held) for one, at, held in state.memory if one == life]
        last = mine[-1][0] if mine else 0.0
        parts = [[held for at, held in mine if low * last <= at <= (low + 1 / 3) * last] for low in (1 / 3, 2 / 3)]
        middle, end = (median(part) if part else float("nan") for part in parts)
        most = max((held for _, held in mine), default=0.0)
        told = f"{middle / 1e6:,.0f} MB, then {end / 1e6:,.0f} MB, at most {most / 1e6:,.0f} MB"
        rows.append((f"memory: server {life + 1}", told, short or end <= GROWTH * middle))
    return rows


def main() -> None:
    """Run, print the table, and exit with 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    given = parser.parse_args()
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="cxr-soak-") as name:
        folder, files = Path(name), xrays()
        state, sources = State([]), []
        for seed in (0, 1):
            (folder / str(seed)).mkdir()
            made = deployed(folder / str(seed), network(seed=seed, size=224))
            state.wanted.append(evaluated(made, files))
            sources.append(save_model(made.folder, folder / f"source{seed}", CLASSES))
        kinds = requests_of_each_kind(files)
        work: list[tuple[Callable, tuple]] = [(watch, (state,))]
        work += [(ask, (state, kind, kinds[kind])) for kind, count in CLIENTS.items() for _ in range(count)]
        threads = [Thread(target=target, args=arguments, daemon=True) for target, arguments in work]
        for thread in threads:
            thread.start()
        try:
            soak(state, sources, folder, given.seconds)
        finally:
            state.over.set()
            for thread in threads:
                thread.join(150)
        logs = "".join(file.read_text(errors="replace") for file in sorted(folder.glob("server*.log")))
    sys.exit(told(state, given.seconds, logs))


def told(state: State, seconds: float, logs: str) -> int:
    """Print the table; returns the exit status."""
    rows = verdicts(state, seconds)
    rows.append(("log: traces of faults", f"{logs.count('Traceback'):,}", "Traceback" not in logs))
    wide = max(len(what) for what, _, _ in rows)
    print(f"\nA served model at full load, {seconds:,.0f} s, {lives(seconds)} servers\n")
    for what, found, kept in rows:
        print(f"  {what:<{wide}}  {found}{'' if kept else '   BROKEN'}")
    for line in state.broken[:10]:
        print(f"\n{line}")
    return 0 if all(kept for _, _, kept in rows) else 1


if __name__ == "__main__":
    main()
