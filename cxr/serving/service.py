"""A registered model at work: pictures in, one row of a table out for each. Neither torch nor MLflow is needed.

Its folder holds `model.onnx` (see `cxr.packaging.export_onnx`), `guard.npz` (see `cxr.serving.ood`) and
`service.json`: digests of both, classes, input spec, temperature, operating points, limits, abstention band.
"""

import base64
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cxr.common.files import sha256_of
from cxr.errors import CxrError, ImageError
from cxr.imaging import decode, heatmap
from cxr.imaging.preprocess import InputSpec
from cxr.serving.ood import OODDetector, implausible
from cxr.serving.probabilities import NORMAL, pneumonia_probability, softmax, undecided
from cxr.serving.request import Limits, image_bytes
from cxr.serving.session import Session

ARTIFACT = "service"  # what its folder is called inside a registered model
MODEL, GUARD, FACTS = "model.onnx", "guard.npz", "service.json"
FORMAT = 2
ARGMAX = "argmax"  # the operating point that every model has: the likeliest class decides
OK, REFER, ERROR = "ok", "refer", "error"
BATCH = 32  # pictures that go through the network at once


@dataclass(frozen=True)
class Row:
    """One picture of a request, ready for the network, or why it is not."""

    raster: np.ndarray | None = None
    reasons: tuple[str, ...] = ()
    error: str = ""


class Service:
    """Answers for pictures. Safe to call from several threads at once."""

    def __init__(self, folder: str | Path, *, threads: int, version: str = ""):
        folder = Path(folder)
        facts = _facts(folder)
        self.classes: tuple[str, ...] = tuple(facts["classes"])
        self.spec = InputSpec.from_dict(facts["input"])
        self.temperature: float = facts["temperature"]
        self.points: dict[str, float | None] = {ARGMAX: None, **facts["operating_points"]}
        self.point: str = facts["operating_point"]
        self.abstain: tuple[float, float] = tuple(facts["abstain"])
        self.limits = Limits(**facts["limits"])
        self.version = version
        self.guard = OODDetector.load(folder / GUARD)
        self.session = Session(folder / MODEL, threads, self.spec.size)
        # However many requests come at once, no more pictures are decoded at once than there are cores for it.
        self._cores = threading.BoundedSemaphore(max(1, threads))
        self._pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode")

    def answer(
        self, values: list[Any], *, point: str = "", with_heat: bool = False, strict: bool = True
    ) -> pd.DataFrame:
        """One row for each cell of a request, in order; see `columns`.

        Raises `ImageError` for too many pictures, an unknown operating point and, if `strict`, the first picture that
        cannot be read; otherwise such a picture has `status` "error" and its reason.
        """
        point = self.check_operating_point(point)
        if len(values) > self.limits.max_images:
            raise ImageError(f"{len(values)} pictures in one request; at most {self.limits.max_images} are taken")
        rows = list(map(self.read, values) if len(values) == 1 else self._pool.map(self.read, values))
        if strict:
            for number, row in enumerate(rows):
                if row.error:
                    raise ImageError(f"row {number}: {row.error}")
        return self.tell(rows, point, with_heat)

    def tell(self, rows: list[Row], point: str, with_heat: bool) -> pd.DataFrame:
        """The answer for pictures that `read` has read, at a known operating point."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(rows), BATCH):
            found += self._batch(rows[start : start + BATCH], point, with_heat)
        return self._table(found, any(row.error for row in rows))

    def check_operating_point(self, wish: str) -> str:
        """The operating point of that name, or the model's own for an empty one."""
        if wish and wish not in self.points:
            raise ImageError(f"operating_point {wish[:40]!r}; allowed: {', '.join(self.points)}")
        return wish or self.point

    def _table(self, found: list[dict[str, Any]], some_empty: bool) -> pd.DataFrame:
        """Empty cells are None: NaN is no JSON. Probabilities are numbers wherever all of them are there."""
        cells = {name: pd.Series([row.get(name) for row in found], dtype=object) for name in columns(self.classes)}
        if not some_empty:
            cells |= {name: cells[name].astype(float) for name, kind in kinds(self.classes).items() if kind == "double"}
        return pd.DataFrame(cells)

    def read(self, value: Any) -> Row:
        """One cell of a request, decoded for the network, or why it cannot be."""
        try:
            data = image_bytes(value, self.limits.max_bytes)
            with self._cores:
                picture = decode.decode_image(data, self.limits.max_pixels)
                return Row(self.spec.to_raster(picture.grey), tuple(implausible(picture)))
        except ImageError as error:
            return Row(error=str(error))

    def _batch(self, rows: list[Row], point: str, with_heat: bool) -> list[dict[str, Any]]:
        good = [row.raster for row in rows if not row.error]
        if good:
            logits, features, maps = self.session.run(np.stack(good))
            probabilities = softmax(logits.astype(np.float64) / self.temperature)
            pneumonia, strange = pneumonia_probability(probabilities), self.guard.strange(features)
        answers, place = [], 0
        for row in rows:
            if row.error:
                answers.append({"operating_point": point, "status": ERROR, "reasons": row.error,
                                "model_version": self.version})  # fmt: skip
                continue
            own = probabilities[place]
            answer = self._told(own, float(pneumonia[place]), [*row.reasons, *strange[place]], point)
            if with_heat and maps.shape[1]:
                answer["heatmap"] = png(heatmap.overlay(row.raster, maps[place, own.argmax()]))
            answers.append(answer)
            place += 1
        return answers

    def _told(self, own: np.ndarray, pneumonia: float, reasons: list[str], point: str) -> dict[str, Any]:
        if undecided(pneumonia, self.abstain):
            low, high = self.abstain
            reasons = [*reasons, f"undecided (probability of pneumonia {pneumonia:.2f}, between {low:g} and {high:g})"]
        threshold = self.points[point]
        positive = own.argmax() != NORMAL if threshold is None else pneumonia >= threshold
        return {
            "label": self.classes[int(own.argmax())],
            **{f"probability_{name}": float(p) for name, p in zip(self.classes, own, strict=True)},
            "probability_pneumonia": pneumonia,
            "operating_point": point,
            "decision": None if reasons else "pneumonia" if positive else "normal",
            "status": REFER if reasons else OK,
            "reasons": "; ".join(reasons),
            "heatmap": None,
            "model_version": self.version,
        }


def columns(classes: tuple[str, ...]) -> list[str]:
    """Names of the columns of an answer, in their order.

    `label` is the likeliest class; `decision` is "pneumonia" or "normal" at the operating point, and empty where
    `status` is not "ok"; `reasons` says why; `heatmap` is a PNG in base64, where it was asked for.
    """
    names = [f"probability_{name}" for name in classes]
    names += [] if "pneumonia" in classes else ["probability_pneumonia"]
    return ["label", *names, "operating_point", "decision", "status", "reasons", "heatmap", "model_version"]


def kinds(classes: tuple[str, ...]) -> dict[str, str]:
    """What each of `columns` holds: "double" for probabilities, "string" for all else."""
    return {name: "double" if name.startswith("probability_") else "string" for name in columns(classes)}


def png(picture: np.ndarray) -> str:
    """A picture, grey or RGB, as a PNG file in base64."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise CxrError(f"{folder} has format {facts['format']}; this version reads format {FORMAT}")
        for name in (MODEL, GUARD):
            if sha256_of(folder / name) != facts["sha256"][name]:
                raise CxrError(f"{folder}: {name} is not the one that {FACTS} names (cut off or exchanged)")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CxrError(f"{folder} is no complete folder of a served model ({error}); register it again") from None
    return facts
