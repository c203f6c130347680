"""Phantom chest X-rays: drawn images in the layout of the Kermany dataset, so that the workflow runs without data.

Phantoms are schematic (outline, lungs, ribs, spine, heart, diaphragm) and show no patient. Bacterial pneumonia is drawn
as focal consolidation, viral pneumonia as diffuse perihilar streaks. Scores on phantoms say nothing about X-rays.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from PIL import Image
from scipy.ndimage import gaussian_filter

VERSION = 1  # raised when the drawings change, so that older ones in a cache are not used
SHARES = {"normal": 0.26, "bacteria": 0.49, "virus": 0.25}  # of the classes, as in the Kermany dataset
TEST_SHARE = 0.15
IMAGES_PER_PATIENT = (1, 1, 2, 3)  # equally likely
HEIGHTS = (250, 340)  # pixels, upper bound excluded


def draw(folder: Path, count: int, seed: int) -> None:
    """Draw `count` phantoms into `folder` / `train|test` / `NORMAL|PNEUMONIA`; reproducible from `count` and `seed`."""
    rng = np.random.default_rng([seed, count])
    patient = 0
    for label, share in SHARES.items():
        remaining, test_remaining = round(count * share), max(2, round(count * share * TEST_SHARE))
        while remaining > 0:
            patient += 1
            images = min(remaining, int(rng.choice(IMAGES_PER_PATIENT)))
            split = "test" if test_remaining > 0 else "train"
            body = _body(rng)
            for number in range(1, images + 1):
                path = folder / split / _name(label, patient, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(phantom(label, body, rng)).save(path, quality=90)
            remaining, test_remaining = remaining - images, test_remaining - images


def example(label: str, seed: int = 0) -> bytes:
    """Return a phantom as the bytes of a JPEG file, as an example of a request."""
    rng = np.random.default_rng([seed, 1])
    buffer = io.BytesIO()
    Image.fromarray(phantom(label, _body(rng), rng)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _name(label: str, patient: int, number: int) -> str:
    if label == "normal":
        return f"NORMAL/IM-{patient:04d}-{number:04d}.jpeg"
    return f"PNEUMONIA/person{patient}_{label}_{patient * 10 + number}.jpeg"


def _body(rng: Generator) -> dict[str, Any]:
    """Anatomy that all images of a patient share."""
    return {
        "width": rng.uniform(0.9, 1.1),
        "lung": rng.uniform(0.85, 1.1),
        "heart": rng.uniform(0.85, 1.2),
        "ribs": rng.integers(8, 11),
        "dense": rng.uniform(0.8, 1.2),
    }


def phantom(label: str, body: dict[str, Any], rng: Generator) -> ndarray:
    """Draw a phantom of a class and a body, `uint8` of shape (H, W)."""
    height = int(rng.integers(*HEIGHTS))
    width = int(height * rng.uniform(1.0, 1.35))
    x, y = _coordinates(height, width, rng)
    film = 0.12 + 0.62 * _ellipse(x, y, 0, 0.15, body["width"], 1.15, 0.04)
    left, right = _lungs(x, y, body)
    lungs = np.maximum(left, right)
    film -= 0.42 * lungs
    film += 0.10 * body["dense"] * _ribs(x, y, body) * (0.4 + 0.6 * lungs)
    film += 0.22 * np.exp(-((x / 0.09) ** 2)) * (0.75 + 0.25 * np.cos(y * 42)) * (y > -1)
    film += 0.30 * _ellipse(x, y, 0.14, 0.30, 0.32 * body["heart"], 0.34 * body["heart"], 0.05)
    film += 0.30 * _smooth(y - 0.68 + 0.18 * x**2 + 0.04 * np.sign(x), 0.03) * (np.abs(x) < body["width"])
    film += 0.10 * _ellipse(x, y, 0, 0.0, 0.26, 0.42, 0.12)  # hila
    film += _disease(label, x, y, left, right, rng)
    film += 0.020 * gaussian_filter(rng.standard_normal(film.shape), 0.8)
    film += 0.05 * gaussian_filter(rng.standard_normal(film.shape), 12) * 12
    film = np.clip(film, 0, 1.4) ** rng.uniform(0.8, 1.25) * rng.uniform(0.72, 0.95) + rng.uniform(-0.03, 0.05)
    return (np.clip(film, 0, 1) * 255).astype(np.uint8)


def _coordinates(height: int, width: int, rng: Generator) -> tuple[ndarray, ndarray]:
    """Body coordinates of every pixel: -1..1 over the height, slightly rotated, shifted and scaled."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = (2 * y - height) / height, (2 * x - width) / height
    angle, scale = rng.normal(0, 0.04), rng.uniform(0.9, 1.12)
    x, y = x - rng.normal(0, 0.04), y - rng.normal(0, 0.04)
    return (x * np.cos(angle) - y * np.sin(angle)) * scale, (x * np.sin(angle) + y * np.cos(angle)) * scale


def _smooth(value: ndarray, soft: float) -> ndarray:
    return 1 / (1 + np.exp(-np.clip(value / soft, -30, 30)))


def _ellipse(x: ndarray, y: ndarray, cx: float, cy: float, rx: float, ry: float, soft: float) -> ndarray:
    return _smooth(1 - np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2), soft)


def _lungs(x: ndarray, y: ndarray, body: dict[str, Any]) -> tuple[ndarray, ndarray]:
    base = _smooth(0.62 - 0.15 * x**2 - y, 0.03)
    size = body["lung"]
    return tuple(_ellipse(x, y, side * 0.42, 0.05, 0.33 * size, 0.80 * size, 0.06) * base for side in (-1, 1))


def _ribs(x: ndarray, y: ndarray, body: dict[str, Any]) -> ndarray:
    """Arches that descend on both sides of the spine."""
    phase = (y - 0.45 * x**2 + 0.30 * np.abs(x)) * body["ribs"] * np.pi / 1.4
    return np.maximum(0, np.sin(phase)) ** 3 * (np.abs(x) > 0.08) * (np.abs(x) < body["width"]) * (y < 0.75)


def _disease(label: str, x: ndarray, y: ndarray, left: ndarray, right: ndarray, rng: Generator) -> ndarray:
    if label == "bacteria":
        opacity = np.zeros_like(x)
        for _ in range(int(rng.integers(1, 3))):
            side, lung = (-1, left) if rng.random() < 0.5 else (1, right)
            cx, cy = side * rng.uniform(0.28, 0.55), rng.uniform(-0.35, 0.5)
            rx, ry = rng.uniform(0.13, 0.28, 2)
            rough = gaussian_filter(rng.standard_normal(x.shape), 6) * 6
            opacity = np.maximum(opacity, _ellipse(x, y, cx, cy, rx, ry, 0.18) * (1 + 0.5 * rough) * lung)
        return rng.uniform(0.22, 0.42) * opacity
    if label == "virus":
        streaks = gaussian_filter(rng.standard_normal(x.shape), (1.2, 3.5)) * 4
        streaks += gaussian_filter(rng.standard_normal(x.shape), (3.5, 1.2)) * 4
        perihilar = np.exp(-((np.abs(x) - 0.3) ** 2) / 0.08 - (y - 0.05) ** 2 / 0.35)
        return np.maximum(left, right) * perihilar * (rng.uniform(0.05, 0.12) + rng.uniform(0.03, 0.08) * streaks)
    return np.zeros_like(x)
