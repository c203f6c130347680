"""The served model under load, against a bare call of its network and against the usual way to serve PyTorch:
`python -m bench.serve --model efficientnet_v2_s --size 384 --seconds 15`. Needs `wrk` (Debian: apt install wrk).

The pictures are real X-rays enlarged to 1 to 2 megapixels with film grain, as JPEG; weights are drawn at random.
"""

import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import mlflow
import numpy as np
import requests
import torch
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from PIL import Image

from bench.common import ROOT, parser, quiet, real_images, report, settings
from bench.serve_parts import bare, floor, save_before
from cxr.common.hardware import cores
from cxr.common.names import PNEUMONIA
from cxr.datasets.manifest import Manifest
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.imaging.reader import ImageReader
from cxr.loading.rasters import ImageDataset
from cxr.models.build import build
from cxr.models.bundle import Bundle
from cxr.packaging import package
from cxr.serving.probabilities import softmax
from cxr.serving.service import Service
from steps.registry.identity import requirements
from steps.registry.registry import signature

PICTURES = 8
CLIENTS = (1, 4, 16)
MEGAPIXELS = (1.0, 2.0)
MANY = 32  # images of one request
JSON, JPEG = "application/json", "image/jpeg"


def pictures(manifest: Manifest) -> list[bytes]:
    """JPEG files of 1 to 2 megapixels."""
    rng, made = np.random.default_rng(0), []
    for file, size in zip(manifest.files()[:PICTURES], np.linspace(*MEGAPIXELS, PICTURES), strict=True):
        side = int((size * 1e6) ** 0.5)
        large = np.asarray(Image.open(file).convert("L").resize((side, side), Image.Resampling.BICUBIC), dtype=float)
        buffer = io.BytesIO()
        grain = np.clip(large + rng.normal(0, 3, large.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grain).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


@contextmanager
def server(model: Path, workers: int, log: Path) -> Iterator[tuple[str, float]]:
    """Address of a running server, and seconds from its start to its first answer to /ping."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(Path(sys.executable).parent / "mlflow"), "models", "serve", "-m", str(model), "--env-manager", "local"]
    words += ["--port", str(port), "-w", str(workers), "-t", "600"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{model.parent / 'mlflow.db'}"}
    started = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(words, env=environment, stdout=out, stderr=out)
        try:
            while True:
                try:
                    requests.get(f"http://127.0.0.1:{port}/ping", timeout=1).raise_for_status()
                    break
                except requests.RequestException:
                    if process.poll() is not None or time.perf_counter() - started > 300:
                        sys.exit(log.read_text())
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/invocations", time.perf_counter() - started
        finally:
            process.terminate()
            process.wait(60)


def load(
    address: str, bodies: list[bytes], clients: int, seconds: int, folder: Path, kind: str = JSON
) -> dict[str, float]:
    """Median and 99th percentile in ms, and requests per second, by wrk."""
    for number, body in enumerate(bodies):
        (folder / f"body{number}.json").write_bytes(body)
    script = folder / "load.lua"
    script.write_text(f"""
local bodies, next = {{}}, 0
for i = 0, {len(bodies) - 1} do
  local file = io.open("{folder}/body" .. i .. ".json", "rb"); bodies[i] = file:read("*a"); file:close()
end
request = function()
  next = (next + 1) % {len(bodies)}
  return wrk.format("POST", "/invocations", {{["Content-Type"] = "{kind}"}}, bodies[next])
end
done = function(summary, latency, requests)
  io.write(string.format("FOUND %f %f %d %f %d\\n", latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    summary.requests, summary.duration / 1e6, summary.errors.status + summary.errors.timeout + summary.errors.connect))
end
""")
    words = ["wrk", "-t", "1", "-c", str(clients), "-d", f"{seconds}s", "--timeout", "600s", "-s", str(script), address]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    half, high, count, took, errors = map(float, re.search(r"FOUND (.*)", printed)[1].split())
    if errors:
        sys.exit(f"{errors:.0f} requests failed:\n{printed}")
    return {"median_ms": half, "p99_ms": high, "per_second": count / took}


def save_ours(folder: Path, bundle: Bundle, manifest: Manifest, engine: str = "onnxruntime") -> Path:
    """The model as the registry holds it."""
    datasets = {split: ImageDataset(manifest.split(split), bundle.network.spec) for split in ("train", "val")}
    logits = predict_logits(Predictor(bundle), datasets["val"], 16)
    evaluated = {"val": softmax(logits / bundle.temperature)}
    package.write(folder / "service", bundle, datasets, settings({"serving.engine": engine}).serving, 0, evaluated)
    return save_model(folder / "service", folder / "ours", bundle.network.classes)


def save_model(service: Path, folder: Path, classes: tuple[str, ...]) -> Path:
    """What `cxr.packaging.package` wrote into `service`, as a model for MLflow in `folder`."""
    mlflow.pyfunc.save_model(
        str(folder), python_model=str(ROOT / "cxr/serving/mlflow_model.py"), artifacts={"service": str(service)},
        code_paths=[str(ROOT / "cxr")], signature=signature(classes, PNEUMONIA),
        pip_requirements=requirements(),
    )  # fmt: skip
    return folder


def save_usual(folder: Path, bundle: Bundle) -> Path:
    """The same network as it is served by default: float tensors in, logits out."""
    size = bundle.network.spec.size
    shape = Schema([TensorSpec(np.dtype(np.float32), (-1, 3, size, size))])
    mlflow.pytorch.save_model(
        bundle.network.module, str(folder / "usual"), serialization_format="pickle",
        signature=ModelSignature(shape, Schema([TensorSpec(np.dtype(np.float32), (-1, 3))])),
        pip_requirements=["torch"],
    )  # fmt: skip
    return folder / "usual"


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--model", default="efficientnet_v2_s")
    made.add_argument("--size", type=int, default=384)
    made.add_argument("--seconds", type=int, default=15, help="of each measurement")
    made.add_argument("--no-usual", action="store_true", help="leave the usual way out")
    made.add_argument("--engine", default="onnxruntime", help="onnxruntime | openvino | auto")
    made.add_argument("--before", help="a commit whose server is measured beside this one, as `main~20`")
    given = made.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed; Debian and Ubuntu: apt install wrk")
    quiet()
    warnings.simplefilter("ignore")  # hints of MLflow about its own defaults
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    manifest = real_images(60, 20)
    wanted = settings({"model.name": given.model, "model.weights": "none", "model.input_size": given.size})
    bundle, files = Bundle(build(wanted.model, manifest.classes, seed=0)), pictures(manifest)
    ones = [json.dumps({"inputs": [base64.b64encode(data).decode()]}).encode() for data in files]
    rows = [
        ("model", f"{given.model}, {given.size} pixels, weights random"),
        ("images", f"JPEG of 1 to 2 megapixels, {sum(map(len, files)) / len(files) / 1e3:.0f} kB in the mean"),
    ]
    figures: dict = {}
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as name:
        folder = Path(name)
        ours = save_ours(folder, bundle, manifest, given.engine)
        before = save_before(given.before, folder / "before", given.model, given.size) if given.before else None
        service = Service(folder / "service", threads=cores())
        earlier = [at_four(before, ones, given.seconds, folder)] if before else []
        for workers in (1, 2):
            with server(ours, workers, folder / "ours.log") as (address, start):
                figures[f"start_seconds_w{workers}"] = start
                load(address, ones, workers, 3, folder)  # warm
                for clients in CLIENTS:
                    found = load(address, ones, clients, given.seconds, folder)
                    figures[f"w{workers}_c{clients}"] = found
                    rows.append((f"-w {workers}, {clients} clients: median, 99 %, requests", in_words(found)))
                if requests.post(address, files[0], headers={"Content-Type": JPEG}, timeout=60).status_code == 200:
                    for clients in CLIENTS[:2]:
                        found = load(address, files, clients, given.seconds, folder, JPEG)
                        figures[f"w{workers}_c{clients}_raw"] = found
                        rows.append((f"-w {workers}, {clients} clients, pictures as they are", in_words(found)))
                if workers == 1:
                    rows += shares(service, address, files, ones, given.seconds, folder, figures)
        if before:
            earlier.append(at_four(before, ones, given.seconds, folder))
            rows += against(given.before, earlier, figures)
        rows.append(("first answer after the start, -w 1", f"{figures['start_seconds_w1']:.1f} s"))
        if not given.no_usual:
            rows += usual(bundle, folder, files, given.seconds, figures)
    report(given, "The served model under load", rows, figures)


def in_words(found: dict[str, float]) -> str:
    """Figures of `load` for a row."""
    return f"{found['median_ms']:.1f} ms, {found['p99_ms']:.1f} ms, {found['per_second']:.1f} /s"


def shares(
    service: Service, address: str, files: list[bytes], ones: list[bytes], seconds: int, folder: Path, figures: dict
) -> list[tuple[str, str]]:
    """What share of the median of one client the network takes, and decoding and the network, each measured in turn."""
    texts = [base64.b64encode(files[i % PICTURES]).decode() for i in range(MANY)]
    many = [json.dumps({"dataframe_records": [{"image": text} for text in texts]}).encode()]
    rows = []
    raw = "w1_c1_raw" in figures
    for batch, bodies, kind, rounds in ((1, files if raw else ones, JPEG if raw else JSON, 16), (MANY, many, JSON, 3)):
        times: list[tuple[float, float, float]] = []
        for _ in range(3):
            alone, least = bare(service, batch, rounds), floor(service, files, batch, rounds)
            times.append((alone, least, load(address, bodies, 1, max(3, seconds // 3), folder, kind)["median_ms"]))
        alone, least, whole = (median(column) for column in zip(*times, strict=True))
        figures[f"parts_{batch}"] = {"bare_ms": alone, "decode_and_bare_ms": least, "median_ms": whole}
        what = "1 image" if batch == 1 else f"{batch} images"
        rows += [
            (f"network, decoding and network, whole answer: {what}", f"{alone:.1f} ms, {least:.1f} ms, {whole:.1f} ms"),
            (f"share of the network, of decoding and network: {what}", f"{alone / whole:.2f}, {least / whole:.2f}"),
        ]
    return rows


def at_four(model: Path, ones: list[bytes], seconds: int, folder: Path) -> dict[str, float]:
    """The server of an earlier commit, under 4 clients."""
    with server(model, 1, folder / "before.log") as (address, _):
        load(address, ones, 1, 3, folder)
        return load(address, ones, 4, seconds, folder)


def against(revision: str, earlier: list[dict[str, float]], figures: dict) -> list[tuple[str, str]]:
    """Requests per second of 4 clients, now and at an earlier commit, which was measured before and after."""
    was = median(found["per_second"] for found in earlier)
    now = max(figures[name]["per_second"] for name in ("w1_c4", "w1_c4_raw") if name in figures)
    figures |= {"before": earlier, "times_before": now / was}
    return [
        (f"4 clients, -w 1, at {revision}", " and ".join(in_words(found) for found in earlier)),
        ("requests per second, now / then", f"{now / was:.2f}"),
    ]


def usual(bundle: Bundle, folder: Path, files: list[bytes], seconds: int, figures: dict) -> list[tuple[str, str]]:
    """Requests per second of the usual way, from clients that have decoded and prepared the pictures themselves."""
    predictor = Predictor(bundle)
    reader = ImageReader(predictor.spec)
    rasters = [torch.from_numpy(reader.raster(data)[None]) for data in files]
    tensors = [predictor.normalise(raster).numpy().round(4).tolist() for raster in rasters]
    bodies = [json.dumps({"inputs": tensor}).encode() for tensor in tensors]
    with server(save_usual(folder, bundle), 1, folder / "usual.log") as (address, _):
        load(address, bodies, 1, 3, folder)
        best = max(
            (load(address, bodies, clients, seconds, folder) for clients in (1, 4)), key=lambda f: f["per_second"]
        )
    ours = max(figures["w1_c1"]["per_second"], figures["w1_c4"]["per_second"])
    figures |= {"usual": best, "usual_ratio": ours / best["per_second"]}
    return [
        (
            "the usual way (mlflow.pytorch, float JSON), -w 1",
            f"{best['median_ms']:.0f} ms, {best['per_second']:.2f} /s",
        ),
        ("requests per second, ours / usual", f"{figures['usual_ratio']:.1f}"),
    ]


if __name__ == "__main__":
    main()
