"""Which images a folder holds, and what their folders and names say: class, patient, official part.

The layouts in which the Kermany set is found: Mendeley version 2 (`train|test` / `NORMAL|PNEUMONIA`, names such as
`person12_bacteria_34.jpeg`, `IM-0115-0001.jpeg`, `NORMAL2-IM-0587-0001.jpeg`), later versions (names such as
`BACTERIA-1083680-0012.jpeg`: class, patient, image), the Kaggle copy (a `val` folder, everything once more in a nested
`chest_xray/`, `__MACOSX`), each with or without wrapper folders and official parts.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cxr.errors import CxrError
from cxr.imaging.decode import SUFFIXES
from cxr.settings.schema import CLASS_NAMES

log = logging.getLogger("cxr.datasets.layouts")

# Kaggle's `val` is 16 images taken from the training part, whose patients are in `train` as well.
PARTS = {"train": "train", "val": "train", "test": "test"}
_PERSON = re.compile(r"person(\d+)_(?:(bacteria|virus)_)?", re.IGNORECASE)
_NORMAL = re.compile(r"(?:NORMAL2-)?IM-(\d+)", re.IGNORECASE)
_LATER = re.compile(r"(NORMAL|BACTERIA|VIRUS)-(\d+)-", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """One image: `path` relative to the root (POSIX), its class, its patient within the part, its official part."""

    path: str
    label: str
    patient: str
    part: str | None


def scan(root: Path, classes: int = 3) -> list[Found]:
    """Every image below `root` with what its place and name say of it, sorted by path.

    `classes` is 3 (normal, bacteria, virus) or 2 (normal, pneumonia). Raises `CxrError` for folders without images,
    images whose class nobody can tell, and classes without images.
    """
    if not root.is_dir():
        raise CxrError(f"data path {root} is no folder; give a folder, a .zip, an address, `mendeley` or `sample`")
    paths = [p for p in _image_paths(root) if _class_folder(p) is not None or _LATER.match(p.name)]
    if not paths:
        raise CxrError(
            f"{root} holds no X-rays in a known layout: {', '.join(SUFFIXES)} files in folders NORMAL and PNEUMONIA "
            "(below train and test, or not)"
        )
    found = [_describe(path, classes) for path in _without_copies(paths)]
    counts = Counter(item.label for item in found)
    empty = [name for name in CLASS_NAMES[classes] if not counts[name]]
    if empty:
        seen = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise CxrError(f"{root} has no images of {' and '.join(empty)} (seen: {seen}); every class needs some")
    return sorted(found, key=lambda item: item.path)


def _image_paths(root: Path) -> list[PurePosixPath]:
    paths, passed = [], Counter()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f != "__MACOSX" and not f.startswith("."))
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                passed[path.suffix.lower() or name] += 1
            else:
                paths.append(PurePosixPath(path.relative_to(root).as_posix()))
    if passed:
        log.info("passed over %d other files (%s)", passed.total(), ", ".join(sorted(passed)[:5]))
    return paths


def _class_folder(path: PurePosixPath) -> str | None:
    return next((p.lower() for p in reversed(path.parts[:-1]) if p.lower() in ("normal", "pneumonia")), None)


def _part(path: PurePosixPath) -> str | None:
    return next((PARTS[p.lower()] for p in reversed(path.parts[:-1]) if p.lower() in PARTS), None)


def _without_copies(paths: list[PurePosixPath]) -> Iterator[PurePosixPath]:
    """Of images with the same place below their part (a nested second copy of all), the one highest up."""
    seen = set()
    for path in sorted(paths, key=lambda p: (len(p.parts), p)):
        low = [part.lower() for part in path.parts]
        tops = [i for i, part in enumerate(low[:-1]) if part in PARTS or part in ("normal", "pneumonia")]
        place = tuple(low[min(tops) :] if tops else low)
        if place not in seen:
            seen.add(place)
            yield path


def _describe(path: PurePosixPath, classes: int) -> Found:
    label, patient = _named(path)
    if label is None:
        if classes == 3:
            raise CxrError(
                f"{path}: neither folder nor name tells bacteria from virus; name it person1_bacteria_1.jpeg or "
                "VIRUS-1-1.jpeg, or use data.classes=2"
            )
        label = "pneumonia"
    if classes == 2 and label != "normal":
        label = "pneumonia"
    return Found(str(path), label, patient, _part(path))


def _named(path: PurePosixPath) -> tuple[str | None, str]:
    """Class (None: pneumonia of a kind that is not told) and patient of one image."""
    folder = _class_folder(path)
    if later := _LATER.match(path.name):
        label = later[1].lower()
        _agree(path, folder, label)
        return label, f"{'normal' if label == 'normal' else 'person'}-{int(later[2])}"
    if folder == "normal":
        number = _NORMAL.match(path.name)
        # A name of another kind is a patient of its own: nothing says that two of them are the same child.
        return "normal", f"normal-{int(number[1]):04d}" if number else f"normal-{path.stem}"
    person = _PERSON.match(path.name)
    word = re.search(r"bacteria|virus", path.name, re.IGNORECASE)
    label = word[0].lower() if word else None
    return label, f"person{int(person[1])}" if person else f"pneumonia-{path.stem}"


def _agree(path: PurePosixPath, folder: str | None, label: str) -> None:
    if folder is not None and (folder == "normal") != (label == "normal"):
        raise CxrError(f"{path}: the folder says {folder}, the name says {label}; put the image where it belongs")
