"""A registered model at work: images in, one row of a table out for each. Needs neither torch nor MLflow.

Its folder holds `model.onnx` (see `cxr.packaging.export_onnx`), `ood.npz` (see `cxr.serving.ood`) and `service.json`:
digests of both, engine, classes and finding, input spec, temperature, operating points, their bands, limits.
"""

import base64
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cxr.common.files import check_digest, sha256_of
from cxr.common.names import ONNXRUNTIME, PNEUMONIA
from cxr.errors import CxrError, ImageError
from cxr.imaging import heatmap
from cxr.imaging.dicom import is_dicom
from cxr.imaging.preprocess import InputSpec, TooManyPixelsError
from cxr.imaging.reader import ImageReader, ReadImage
from cxr.serving import decision
from cxr.serving.budget import WAIT_S, Turns
from cxr.serving.engines import open_session
from cxr.serving.ood import OODDetector
from cxr.serving.probabilities import NEGATIVE, finding_probability, in_digits, softmax
from cxr.serving.request import Limits, image_bytes
from cxr.serving.watch import Watch

ARTIFACT = "service"  # name of the folder inside a registered model
MODEL, DETECTOR, CONFIG = "model.onnx", "ood.npz", "service.json"
FORMAT = 3
OK, REFER, ERROR = "ok", "refer", "error"
_LARGE = 16_000_000  # pixels; more than most radiographs have, and a noticeable time to decode
BATCH = 32  # images that go through the network at once
DISTANCE = "distance"
# Columns beside those of an answer, if they are asked for, with MLflow's types: how far the image is from the training
# images (see `OODDetector.distances`), the mean grey level of its raster, 0 to 255, and its sides in pixels.
MEASURED = {DISTANCE: "double", "brightness": "double", "width": "integer", "height": "integer"}


@dataclass(frozen=True)
class Row:
    """One image of a request, ready for the network, or why it cannot be read."""

    image: ReadImage | None = None
    error: str = ""


class Service:
    """Answers for images. Thread-safe.

    Args:
        folder: what `cxr.packaging.package.write` wrote.
        threads: cores for decoding and the network.
        version: version of the model in the registry, for its answers.
        waiting: requests that may wait for their turn at decoding large pictures (see `cxr.serving.budget`), and these
            and DICOM files no longer than `WAIT_S`; None for any number, and for as long as it takes.

    Attributes:
        watch: told how long each part takes; nobody unless it is replaced.
    """

    def __init__(self, folder: str | Path, *, threads: int, version: str = "", waiting: int | None = None):
        folder = Path(folder)
        config = _read_config(folder)
        self.classes: tuple[str, ...] = tuple(config["classes"])
        self.finding: str = config.get("finding", PNEUMONIA)
        self.spec = InputSpec.from_dict(config["input"])
        self.temperature: float = config["temperature"]
        self.operating_points = decision.operating_points(config["operating_points"])
        self.operating_point: str = config["operating_point"]
        self.bands: dict[str, decision.Band] = config["bands"]
        self.limits: Limits = config["limits"]
        self.version = version
        self.digest = sha256_of(folder / CONFIG)  # of everything that decides the answers, but the code
        self.watch = Watch()
        self.detector = OODDetector.load(folder / DETECTOR)
        # Versions that were registered before there was a choice do not name their engine.
        self.engine: str = config.get("engine", ONNXRUNTIME)
        self.session = open_session(self.engine, folder / MODEL, threads, self.spec.size)
        self.reader = ImageReader(self.spec, self.limits.max_pixels, None if waiting is None else WAIT_S)
        self._reader_of_small = ImageReader(self.spec, min(_LARGE, self.limits.max_pixels))
        # However many requests arrive at once, no more images are decoded at once than there are cores, and on no more
        # than half of these the large ones, so that others need not wait for them.
        self._cores = self.session.cores
        self._cores_for_large = Turns(self._cores.number // 2, "pictures of more than 16 megapixels", waiting)

    def answer(self, values: list[Any], **options: Any) -> pd.DataFrame:
        """`records` as a table. Empty cells are None; probabilities are numbers if no row failed."""
        return self.table(self.records(values, **options), options.get("measured", False))

    def records(
        self,
        values: list[Any],
        *,
        point: str = "",
        with_heatmap: bool = False,
        measured: bool = False,
        strict: bool = True,
    ) -> list[dict[str, Any]]:
        """The answer to each cell of a request, in order: values by the names of `columns`, None for an empty one.

        Args:
            values: images as bytes or base64.
            point: name of the operating point; empty for that of the model.
            with_heatmap: add a class activation map to each row.
            measured: add the columns `MEASURED`, empty for an image that cannot be read.
            strict: raise for an image that cannot be read; otherwise its row has `status` "error" and the reason.

        Raises:
            ImageError: too many images, an unknown operating point or, if `strict`, an image that cannot be read.
            BusyError: too many large pictures or DICOM files are being decoded.
        """
        point = self.check_operating_point(point)
        self.limits.check(len(values))
        # Each request has threads of its own, so that none waits until a longer one has been read.
        with ThreadPoolExecutor(self._cores.number, thread_name_prefix="decode") as pool:
            read = partial(self.read, request=values)
            rows = list(map(read, values) if len(values) == 1 else pool.map(read, values))
        if strict:
            for number, row in enumerate(rows):
                if row.error:
                    raise ImageError(f"row {number}: {row.error}")
        return self.records_of(rows, point, with_heatmap, measured)

    def read(self, value: Any, request: object = None) -> Row:
        """One cell of a request, decoded for the network, or why it cannot be."""
        started = time.perf_counter()
        try:
            return Row(self._decode(image_bytes(value, self.limits.max_bytes), request))
        except ImageError as error:
            return Row(error=str(error))
        finally:
            self.watch.decoding(time.perf_counter() - started)

    def _decode(self, data: bytes, request: object) -> ReadImage:
        if is_dicom(data):  # waits for a process that decodes it, and must not keep other images from being decoded
            return self.reader.read(data)
        try:
            with self._cores.one():
                return self._reader_of_small.read(data)
        except TooManyPixelsError:  # known from the header
            with self._cores_for_large.taken(request), self._cores.one():
                return self.reader.read(data)

    def records_of(
        self, rows: list[Row], point: str, with_heatmap: bool = False, measured: bool = False
    ) -> list[dict[str, Any]]:
        """`records` for images that `read` has read, at a known operating point."""
        answers: list[dict[str, Any]] = []
        for start in range(0, len(rows), BATCH):
            answers += self._answer_batch(rows[start : start + BATCH], point, with_heatmap)
        if measured:
            for row, answer in zip(rows, answers, strict=True):
                answer.update({name: getattr(row.image, name, None) for name in MEASURED if name != DISTANCE})
        names = self._columns(measured)
        return [{name: answer.get(name) for name in names} for answer in answers]

    def check_operating_point(self, name: str) -> str:
        """The operating point `name`, or the one of the model for an empty name."""
        if name and name not in self.operating_points:
            raise ImageError(f"unknown operating_point; expected one of {', '.join(self.operating_points)}")
        return name or self.operating_point

    def table(self, records: list[dict[str, Any]], measured: bool = False) -> pd.DataFrame:
        """Answers as a table, with the columns `MEASURED` if they have these; its columns do not depend on the rows."""
        failed = any(record["status"] == ERROR for record in records)
        kinds = {} if failed else column_types(self.classes, self.finding)
        cells = {
            name: pd.Series([record[name] for record in records], dtype=object) for name in self._columns(measured)
        }
        return pd.DataFrame(
            {name: values.astype(float) if kinds.get(name) == "double" else values for name, values in cells.items()}
        )

    def _columns(self, measured: bool) -> list[str]:
        return [*columns(self.classes, self.finding), *(MEASURED if measured else ())]

    def _answer_batch(self, rows: list[Row], point: str, with_heatmap: bool) -> list[dict[str, Any]]:
        images = [row.image for row in rows if row.image is not None]
        if images:
            started = time.perf_counter()
            logits, features, maps = self.session.run(np.stack([image.raster for image in images]))
            self.watch.network(time.perf_counter() - started)
            probabilities = softmax(logits.astype(np.float64) / self.temperature)
            if not np.isfinite(probabilities).all():
                raise CxrError("the probabilities are not finite; the network is damaged, register the model again")
            positive, distances = finding_probability(probabilities), self.detector.distances(features)
            unlike = self.detector.reasons(features, distances)
        answers, i = [], 0
        for row in rows:
            if row.image is None:
                failed = {"operating_point": point, "status": ERROR, "reasons": row.error}
                answers.append({**failed, "model_version": self.version})
                continue
            reasons = [*row.image.implausible, *unlike[i]]
            answer, explained = self._answer_one(probabilities[i], float(positive[i]), reasons, point)
            if with_heatmap and maps.shape[1]:
                answer["heatmap"] = png(heatmap.overlay(row.image.raster, maps[i, explained]))
            answers.append(answer | {DISTANCE: float(distances[i])})
            i += 1
        return answers

    def _answer_one(
        self, probabilities: np.ndarray, positive: float, reasons: list[str], point: str
    ) -> tuple[dict[str, Any], int]:
        """The answer for one image, and the index of the class that its heatmap explains."""
        if decision.in_band(positive, self.bands[point]):
            low, high, here = map(in_digits, (*self.bands[point], positive))
            reasons = [*reasons, f"undecided (probability of {self.finding} {here}, between {low} and {high})"]
        decided = None if reasons else bool(decision.is_positive(positive, self.operating_points[point]))
        answer = {
            "label": self.classes[int(probabilities.argmax())],
            **{f"probability_{name}": float(p) for name, p in zip(self.classes, probabilities, strict=True)},
            f"probability_{self.finding}": positive,
            "operating_point": point,
            "decision": None if decided is None else self.finding if decided else self.classes[NEGATIVE],
            "status": REFER if reasons else OK,
            "reasons": "; ".join(reasons),
            "heatmap": None,
            "model_version": self.version,
        }
        return answer, decision.explained_class(probabilities, decided)


def columns(classes: tuple[str, ...], finding: str) -> list[str]:
    """Names of the columns of an answer, in order.

    `label` is the likeliest of the classes. `decision` is the finding or the first class, the negative one, by the
    probability of the finding at the threshold of the operating point, and empty unless `status` is "ok"; `reasons`
    says why. Label and decision answer two questions and can differ: of normal 0.4, bacteria 0.3 and virus 0.3, normal
    is the likeliest class, and pneumonia has a probability of 0.6. `heatmap`, a PNG in base64 if it was asked for, is
    the evidence for the decision, or without one for the label (see `cxr.serving.decision.explained_class`).
    """
    names = [f"probability_{name}" for name in classes]
    names += [] if finding in classes else [f"probability_{finding}"]
    return ["label", *names, "operating_point", "decision", "status", "reasons", "heatmap", "model_version"]


def column_types(classes: tuple[str, ...], finding: str) -> dict[str, str]:
    """MLflow's type of each of `columns`: "double" for probabilities, "string" for everything else."""
    return {name: "double" if name.startswith("probability_") else "string" for name in columns(classes, finding)}


def png(image: np.ndarray) -> str:
    """An image, grey or RGB, as a PNG file in base64."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config["format"] != FORMAT:
            raise CxrError(
                f"{folder} has format {config['format']}; this version reads format {FORMAT}: make a version of the "
                "same weights (mlflow run . -e repackage -P version=N, or -e evaluate -P run_id=RUN of its bundle)"
            )
        config["limits"] = Limits(**config["limits"])
        config["bands"] = {
            name: _band(config, name, at) for name, at in decision.operating_points(config["operating_points"]).items()
        }
        for name in (MODEL, DETECTOR):
            wanted = config["sha256"][name]
            check_digest(folder / name, wanted, owner=str(folder), config=CONFIG, remedy="register it again")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CxrError(f"{folder} is not a complete folder of a served model ({error}); register it again") from None
    return config


def _band(config: dict[str, Any], name: str, threshold: float) -> decision.Band:
    """The band of an operating point, which must surround its threshold."""
    low, high = config["bands"][name]
    if not 0 <= low <= threshold <= high <= 1:
        raise ValueError(f"the band {low} to {high} of {name} does not surround its threshold {threshold}")
    return float(low), float(high)
