"""Listing of the images that a table names, with their labels, patients, official splits and whatever else it says."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cxr.common import storage
from cxr.common.names import printable
from cxr.common.storage import Place
from cxr.datasets import columns, layouts, tables
from cxr.datasets.files import Files
from cxr.datasets.layouts import ListedImage
from cxr.datasets.manifest import EXTRAS
from cxr.datasets.patients import PSEUDONYMS, STUDIES
from cxr.datasets.tables import examples
from cxr.errors import CxrError
from cxr.settings.schema import DataSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """The images of a dataset, as listed before any of them is read.

    Attributes:
        images: the images.
        description: `labels`, the table, and `left_out`, how many of its rows are not among them, by reason; empty
            without a table.
    """

    images: list[ListedImage]
    description: dict[str, Any] = field(default_factory=dict)


def listing(root: Place, data: DataSettings, *, every_class: bool = True) -> Listing:
    """List the images below `root`, from the table `data.labels` or from the names of folders and files.

    Args:
        root: folder of the dataset.
        data: where labels are and what they mean.
        every_class: whether each class must have images.

    Raises:
        CxrError: see `read` and `layouts.scan`.
    """
    if data.labels is None:
        return Listing(layouts.scan(root, data.classes, every_class=every_class))
    return read(root, data, data.class_names, every_class=every_class)


def read(root: Place, data: DataSettings, classes: tuple[str, ...], *, every_class: bool = True) -> Listing:
    """List the images that the table `data.labels` names, sorted by path.

    Args:
        root: folder of the dataset.
        data: where the table is and what its columns mean.
        classes: class names.
        every_class: whether each class must have images.

    Raises:
        CxrError: the table cannot be read, lacks a column or contradicts itself; a label or split is unknown; paths
            lead out of the folder or mean several files; more than `data.max_unreadable` of the files are missing; a
            patient is in two official splits; a class has no images.
    """
    _check_targets(data, classes)
    table, file = _rows(root, data)
    left_out: dict[str, int] = {}
    table = columns.filtered(table, data, file, left_out)
    table = table.assign(label=columns.labels(table, data, classes, file, left_out))
    table = table[table["label"].notna()].reset_index(drop=True)
    if table.empty:
        raise CxrError(f"{file}: no row is left ({_counted(left_out)}); correct data.filters or data.mapping")
    values = {"given": columns.paths(table, data), "label": table["label"], "row": table[columns.ROW]}
    values |= {"patient": columns.patients(table, data, file), "split": columns.splits(table, data, file)}
    values |= columns.extras(table, data, file)
    rows = pd.DataFrame(values)
    rows["found"] = Files(root).find(rows["given"].tolist())
    rows["path"] = rows["found"].fillna(rows["given"])
    rows = _merged(rows, file, left_out)
    rows = _with_study(rows)
    _check(rows, data, root, file)
    if every_class:
        _check_classes(rows, classes, file)
    names = [name for name in EXTRAS if name in rows]
    extras = rows[names].to_dict("records")
    # Beside images with a split, those without one are for training; `leakage` drops all training images whose patient,
    # or whose study where no patient is known, is in test as well.
    default = "train" if (rows["split"] != "").any() else None
    images = [
        ListedImage(row.path, row.label, row.patient or row.study_of or row.path, row.split or default, more)
        for row, more in zip(rows.itertuples(), extras, strict=True)
    ]
    all_rows = sum(left_out.values()) + len(rows)
    log.info("%s: %d rows, %d images; left out: %s", file, all_rows, len(rows), _counted(left_out))
    if (rows["patient"] == "").any():
        log.warning(
            "%d of %d images have no patient in the table: unless their DICOM files have one, each study, or without "
            "studies each image, counts as a patient of its own, and images of one person can be in several splits",
            *((rows["patient"] == "").sum(), len(rows)),
        )
    description = {"labels": str(file), "left_out": {reason: count for reason, count in left_out.items() if count}}
    return Listing(sorted(images, key=lambda image: image.path), description)


def _check_targets(data: DataSettings, classes: tuple[str, ...]) -> None:
    ours = {label for label in (data.mapping or {}).values() if label is not None}
    if unknown := sorted(ours - set(classes)):
        raise CxrError(
            f"data.mapping leads to {examples(unknown)}, which is no class; expected {', '.join(classes)}, as "
            "data.classes says"
        )


def _rows(root: Place, data: DataSettings) -> tuple[pd.DataFrame, str]:
    """All rows, and the names of the files that they come from."""
    files = data.labels if isinstance(data.labels, dict) else {"": str(data.labels)}
    paths = {split: storage.under(root, name, "data.labels") for split, name in files.items()}
    parts = []
    for split, path in paths.items():
        part = tables.read(path)
        for key, name in columns.named(data):
            tables.column(part, name, key, path)
        part[columns.GIVEN] = split
        part[columns.ROW] = [f"{path.name} row {row + 2}" for row in range(len(part))]
        parts.append(part)
    return pd.concat(parts, ignore_index=True).fillna(""), " and ".join(map(str, paths.values()))


def _merged(rows: pd.DataFrame, file: str, left_out: dict[str, int]) -> pd.DataFrame:
    """One row for each image; rows that contradict each other are refused."""
    groups = rows.groupby("path", sort=False)
    for column, word in (("label", "label"), ("patient", "patient"), ("split", "split")):
        clash = groups[column].nunique()
        paths = clash.index[clash > 1]
        if len(paths):
            said = [f"{path} ({', '.join(groups.get_group(path)['row'][:2])})" for path in paths[:6]]
            raise CxrError(
                f"{file}: {len(paths):,} images have more than one {word}: {examples([*said, *paths[6:]])}; "
                "leave one of their rows, or filter them (data.filters)"
            )
    double = rows["path"].duplicated()
    left_out["double rows"] = int(double.sum())
    if double.any():
        log.info("%s: %d rows repeat an image: %s", file, double.sum(), examples(rows.loc[double, "row"]))
    return rows[~double].reset_index(drop=True)


def _with_study(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the patient of another image of their study where they have none, and else with `study_of`.

    A study is of one patient. `study_of` is the same in all splits, but no pseudonym of a patient: that of a DICOM file
    counts before it.
    """
    if "study" not in rows:
        return rows.assign(study_of="")
    known = rows[(rows["patient"] != "") & (rows["study"] != "")].drop_duplicates("study")
    patient_of = dict(zip(known["study"], known["patient"], strict=True))
    patient = [
        patient or patient_of.get(study, "") for patient, study in zip(rows["patient"], rows["study"], strict=True)
    ]
    study_of = [STUDIES + study.removeprefix(PSEUDONYMS) if study else "" for study in rows["study"]]
    return rows.assign(patient=patient, study_of=study_of)


def _check(rows: pd.DataFrame, data: DataSettings, root: Place, file: str) -> None:
    missing = rows.loc[rows["found"].isna(), "path"]
    if len(missing) > data.max_unreadable * len(rows):
        raise CxrError(
            f"{file}: {len(missing):,} of {len(rows):,} images do not exist below {root}, more than "
            f"data.max_unreadable={data.max_unreadable:g} allows: {examples(missing)}; correct data.columns.path or "
            "data_path, complete the images or raise the limit"
        )
    named = rows[(rows["patient"] != "") & (rows["split"] != "")]
    splits = named.groupby("patient")["split"].nunique()
    torn = named[named["patient"].isin(splits.index[splits > 1])]
    if len(torn):
        first = torn.drop_duplicates(["patient", "split"]).groupby("patient", sort=False)["path"]
        raise CxrError(
            f"{file}: {torn['patient'].nunique():,} patients are in two of the given splits, as by "
            f"{examples(' and '.join(paths) for _, paths in first)}; correct the table, or leave data.columns.split out"
        )


def _check_classes(rows: pd.DataFrame, classes: tuple[str, ...], file: str) -> None:
    counts = Counter(rows.loc[rows["found"].notna(), "label"])
    empty = [name for name in classes if not counts[name]]
    if empty:
        raise CxrError(
            f"{file} has no images of {' and '.join(empty)} (seen: {columns.most(counts)}); correct data.mapping, "
            "data.filters or data.classes"
        )


def _counted(left_out: dict[str, int]) -> str:
    return printable(", ".join(f"{reason} {count:,}" for reason, count in left_out.items() if count) or "none")
