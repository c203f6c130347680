"""Pictures that are no upright chest X-rays, by kind: drawn, from pip packages, or X-rays turned or made negatives."""

import io
import string
from pathlib import Path

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

_SIDES = (200, 700)


def drawn(kind: str, rng: Generator) -> ndarray:
    """One picture of `noise`, `gradient` or `text`, `uint8` of shape (H, W)."""
    return {"noise": _noise, "gradient": _gradient, "text": _text}[kind](rng)


def photographs() -> list[ndarray]:
    """The photographs that scikit-learn and matplotlib ship, `uint8` RGB."""
    import matplotlib
    from sklearn.datasets import load_sample_images

    more = Path(matplotlib.get_data_path(), "sample_data").glob("*.jpg")
    return [*load_sample_images().images, *(np.asarray(Image.open(file).convert("RGB")) for file in sorted(more))]


def photograph(all_: list[ndarray], rng: Generator, *, grey: bool) -> ndarray:
    """A random part of a random photograph."""
    whole = all_[rng.integers(len(all_))]
    side = int(min(whole.shape[:2]) * rng.uniform(0.4, 1))
    top, left = (int(rng.integers(0, length - side + 1)) for length in whole.shape[:2])
    part = Image.fromarray(whole[top : top + side, left : left + side])
    return np.asarray(part.convert("L") if grey else part)


def changed(kind: str, xray: ndarray) -> ndarray:
    """An X-ray as a negative (`inverted`), or turned (`rotated 90`, `rotated 180`, `rotated 270`)."""
    return 255 - xray if kind == "inverted" else np.rot90(xray, int(kind.split()[1]) // 90).copy()


KINDS = ("noise", "gradient", "text", "photograph", "grey photograph", "inverted", "rotated 90", "rotated 180",
         "rotated 270")  # fmt: skip


def strangers(kind: str, count: int, xrays: list[ndarray], seed: int = 0) -> list[bytes]:
    """`count` PNG files of a kind; `xrays` are grey, and made use of where the kind is an X-ray's."""
    rng, made = np.random.default_rng([seed, KINDS.index(kind)]), []
    photos = photographs() if "photograph" in kind else []
    for number in range(count):
        if kind in ("noise", "gradient", "text"):
            picture = drawn(kind, rng)
        elif photos:
            picture = photograph(photos, rng, grey=kind.startswith("grey"))
        else:
            picture = changed(kind, xrays[number % len(xrays)])
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        made.append(buffer.getvalue())
    return made


def _noise(rng: Generator) -> ndarray:
    """White, Gaussian, coarse, or with a spectrum that falls with frequency as that of natural pictures does."""
    height, width = rng.integers(*_SIDES, 2)
    kind = rng.integers(4)
    if kind == 0:
        return rng.integers(0, 256, (height, width), dtype=np.uint8)
    if kind == 1:
        field = rng.normal(size=(height, width))
    elif kind == 2:
        coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8), dtype=np.uint8))
        return np.asarray(coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC))
    else:
        radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
        radius[0, 0] = 1
        spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / radius ** rng.uniform(0.8, 1.6)
        field = np.fft.irfft2(spectrum, s=(height, width))
    return np.clip((field - field.mean()) / field.std() * 45 + 128, 0, 255).astype(np.uint8)


def _gradient(rng: Generator) -> ndarray:
    """Along a line or around a point, between two grey levels."""
    height, width = rng.integers(*_SIDES, 2)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        field = np.cos(angle) * x + np.sin(angle) * y
    else:
        field = np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.2, 0.8))
    low, span = rng.uniform(0, 150), rng.uniform(60, 105)
    return (low + span * (field - field.min()) / np.ptp(field)).astype(np.uint8)


def _text(rng: Generator) -> ndarray:
    """A page of words, dark on light or light on dark."""
    width, height = (int(side) for side in rng.integers(300, 800, 2))
    paper, ink = (int(rng.integers(215, 256)), 15) if rng.random() < 0.75 else (20, 230)
    page, size = Image.new("L", (width, height), paper), int(rng.integers(9, 22))
    pen, font, top = ImageDraw.Draw(page), ImageFont.load_default(size), 10
    while top < height - 10:
        words = [
            "".join(rng.choice(list(string.ascii_letters), rng.integers(2, 11))) for _ in range(rng.integers(3, 15))
        ]
        pen.text((10, top), " ".join(words), fill=ink, font=font)
        top += int(size * rng.uniform(1.2, 1.8))
    return np.asarray(page)
