"""Listing of the images of a folder, with class, patient and official split from folder and file names.

Reads all layouts in which the Kermany dataset is distributed, with or without wrapper folders and official splits:

- Mendeley version 2: `train|test` / `NORMAL|PNEUMONIA`, with names such as `person12_bacteria_34.jpeg`,
  `IM-0115-0001.jpeg` and `NORMAL2-IM-0587-0001.jpeg`;
- later versions: names such as `BACTERIA-1083680-0012.jpeg` (class, patient, image);
- the Kaggle copy: an additional `val` folder, a second copy of all images in a nested `chest_xray/`, and `__MACOSX`.

Classes of the user's own are folders of their names in the same places, such as `train|test` / `healthy|tuberculosis`.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from cxr.common import storage
from cxr.common.names import printable
from cxr.common.storage import Place
from cxr.errors import CxrError
from cxr.imaging.decode import SUFFIXES
from cxr.settings.classes import class_names

log = logging.getLogger(__name__)

# Folder name -> official split. Kaggle's `val` holds 16 images of the training split, with patients that are in `train`
# as well.
OFFICIAL_SPLITS = {"train": "train", "val": "train", "test": "test"}
_KERMANY = ("normal", "pneumonia")  # folders of classes
_PERSON = re.compile(r"person(\d+)_(?:(bacteria|virus)_)?", re.IGNORECASE)
_NORMAL = re.compile(r"(?:NORMAL2-)?IM-(\d+)", re.IGNORECASE)
_LISTED = 5  # skipped kinds of files, and folders with copies, that the log names
_LATER = re.compile(r"(NORMAL|BACTERIA|VIRUS)-(\d+)-", re.IGNORECASE)
_PUBLISHED = 0.9  # share of the names by which a dataset is taken for it


@dataclass(frozen=True)
class ListedImage:
    """An image of a dataset.

    Attributes:
        path: path relative to the root folder, POSIX.
        label: class name.
        patient: identifier of the patient, unique within the official split; a pseudonym, of a patient or a study, is
            unique in all of them.
        official_split: "train" or "test"; None if no image of the dataset has one.
        extras: what else is known, by the names of `manifest.EXTRAS`.
    """

    path: str
    label: str
    patient: str
    official_split: str | None
    extras: dict[str, Any] = field(default_factory=dict)


def scan(root: Place, classes: int | list[str] = 3, *, every_class: bool = True) -> list[ListedImage]:
    """List all images below `root`, sorted by path.

    Args:
        root: folder of the dataset.
        classes: 3 (normal, bacteria, virus), 2 (normal, pneumonia), or the names of the folders, in any case.
        every_class: whether each class must have images.

    Raises:
        CxrError: there are no images, the class of an image is unknown, or a class has no images and must have some.
    """
    if not root.is_dir():
        raise CxrError(f"data path {root} is not a folder; expected a folder, a .zip, a URL, `mendeley` or `sample`")
    own = None if isinstance(classes, int) else tuple(classes)
    folders, found = own or _KERMANY, _image_paths(root)
    paths = [p for p in found if _class_folder(p, folders) is not None or (own is None and _LATER.match(p.name))]
    if not paths:
        expected = " and ".join(own or ("NORMAL", "PNEUMONIA"))
        raise CxrError(
            f"{root} holds no X-rays in a known layout; expected {', '.join(SUFFIXES)} files in folders {expected}, "
            "with or without train and test above them"
        )
    if len(paths) < len(found):
        log.info("left out: %d images in no folder of a class", len(found) - len(paths))
    paths = _without_copies(root, paths, folders)
    images = [_describe_own(path, own) if own is not None else _describe(path, classes) for path in paths]
    if any(image.official_split for image in images):
        # As training images they share the patients of those, so that no child is in two splits.
        images = [replace(image, official_split=image.official_split or "train") for image in images]
    counts = Counter(image.label for image in images)
    empty = [name for name in class_names(classes) if not counts[name]]
    if empty and every_class:
        seen = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise CxrError(f"{root} has no images of {' and '.join(empty)} (seen: {seen}); add images of every class")
    return sorted(images, key=lambda image: image.path)


def _image_paths(root: Place) -> list[PurePosixPath]:
    paths = []
    skipped: Counter[str] = Counter()  # by suffix, or by name if there is none
    for path in map(PurePosixPath, storage.below(root)):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            skipped[path.suffix.lower() or path.name] += 1
        else:
            paths.append(path)
    if skipped:
        kinds = printable(", ".join(sorted(skipped)[:_LISTED]))
        log.info("skipped %d files that are not images (%s)", skipped.total(), kinds)
    return paths


def _class_folder(path: PurePosixPath, folders: tuple[str, ...] = _KERMANY) -> str | None:
    """Name of the innermost class folder, in lower case."""
    return next((name for name in reversed(_folders(path)) if name in folders), None)


def _official_split(path: PurePosixPath) -> str | None:
    return next((OFFICIAL_SPLITS[name] for name in reversed(_folders(path)) if name in OFFICIAL_SPLITS), None)


def _folders(path: PurePosixPath) -> list[str]:
    return [name.lower() for name in path.parts[:-1]]


def _without_copies(root: Place, paths: list[PurePosixPath], folders: tuple[str, ...]) -> list[PurePosixPath]:
    """Drop nested second copies: of files with equal content and equal paths from the split or class folder on.

    The shortest path is kept. Files of the same name with other content are other images, as those of several sites.
    """
    same_name: dict[tuple[str, ...], list[PurePosixPath]] = {}
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        same_name.setdefault(_below_sites(path, folders), []).append(path)
    kept: list[PurePosixPath] = []
    left_out: Counter[str] = Counter()  # by the folder above split and class
    for below, candidates in same_name.items():
        copies = _copies(root, candidates)
        kept += [path for path in candidates if path not in copies]
        left_out.update(str(PurePosixPath(*path.parts[: -len(below)])) for path in copies)
    if left_out:
        where = ", ".join(f"{count:,} in {printable(folder)}" for folder, count in left_out.most_common(_LISTED))
        log.info("copies left out, by name and content: %d (%s)", left_out.total(), where)
    return kept


def _below_sites(path: PurePosixPath, folders: tuple[str, ...]) -> tuple[str, ...]:
    """The parts of a path from its split or class folder on, in lower case."""
    names = [*_folders(path), path.name.lower()]
    known = [i for i, name in enumerate(names[:-1]) if name in OFFICIAL_SPLITS or name in folders]
    return tuple(names[min(known, default=0) :])


def named_as_published(paths: Iterable[str]) -> bool:
    """Whether nearly all files have names of the Kermany dataset, in one of the forms in which it is distributed."""
    names = [PurePosixPath(path).name for path in paths]
    known = sum(any(form.match(name) for form in (_PERSON, _NORMAL, _LATER)) for name in names)
    return known >= _PUBLISHED * len(names)


def _copies(root: Place, paths: list[PurePosixPath]) -> set[PurePosixPath]:
    """Those of `paths` with the content of an earlier one; content is read only where sizes are equal."""
    if len(paths) == 1:
        return set()
    by_size: dict[int, list[PurePosixPath]] = {}
    for path in paths:
        with suppress(OSError):  # here and below: the survey reports such a file as unreadable
            if (size := storage.size(root / path)) is not None:
                by_size.setdefault(size, []).append(path)
    seen: set[str] = set()
    copies: set[PurePosixPath] = set()
    for path in [path for same_size in by_size.values() if len(same_size) > 1 for path in same_size]:
        with suppress(OSError):
            digest = storage.sha256_of(root / path)
            if digest in seen:
                copies.add(path)
            seen.add(digest)
    return copies


def _describe(path: PurePosixPath, classes: int | list[str]) -> ListedImage:
    label, patient = _class_and_patient(path)
    if label is None:
        if classes == 3:
            raise CxrError(
                f"{printable(path)}: neither folder nor name says bacteria or virus; name it like "
                "person1_bacteria_1.jpeg or VIRUS-1-1.jpeg, or set data.classes=2"
            )
        label = "pneumonia"
    if classes == 2 and label != "normal":
        label = "pneumonia"
    return ListedImage(str(path), label, patient, _official_split(path))


def _describe_own(path: PurePosixPath, folders: tuple[str, ...]) -> ListedImage:
    """An image below a folder of the user's own classes; numbers of patients are read as in the Kermany dataset."""
    label = str(_class_folder(path, folders))
    normal = _NORMAL.match(path.name) if label == folders[0] else None
    if person := _PERSON.match(path.name):
        patient = f"person{int(person[1])}"
    else:
        patient = f"{label}-{int(normal[1]):04d}" if normal else f"{label}-{path.stem}"
    return ListedImage(str(path), label, patient, _official_split(path))


def _class_and_patient(path: PurePosixPath) -> tuple[str | None, str]:
    """Class (None: pneumonia of unknown kind) and patient of an image."""
    folder = _class_folder(path)
    if later := _LATER.match(path.name):
        label = later[1].lower()
        _check_agreement(path, folder, label)
        return label, f"{'normal' if label == 'normal' else 'person'}-{int(later[2])}"
    if folder == "normal":
        number = _NORMAL.match(path.name)
        # Any other name counts as a separate patient, since nothing says that two of them are the same child.
        return "normal", f"normal-{int(number[1]):04d}" if number else f"normal-{path.stem}"
    person = _PERSON.match(path.name)
    kind = re.search(r"bacteria|virus", path.name, re.IGNORECASE)
    label = kind[0].lower() if kind else None
    return label, f"person{int(person[1])}" if person else f"pneumonia-{path.stem}"


def _check_agreement(path: PurePosixPath, folder: str | None, label: str) -> None:
    if folder is not None and (folder == "normal") != (label == "normal"):
        raise CxrError(f"{printable(path)}: the folder says {folder}, the name says {label}; move or rename the image")
