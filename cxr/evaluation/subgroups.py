"""Scores of groups of images that a table of labels, or else their files, can tell apart."""

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy import ndarray

from cxr.datasets.characteristics import SHOWN as FROM_TABLE
from cxr.datasets.characteristics import UNKNOWN
from cxr.datasets.manifest import Manifest
from cxr.evaluation import scores
from cxr.evaluation.results import Subgroup
from cxr.evaluation.scores import SUMMARY, Sample

SHOWN = tuple(name for name in SUMMARY if name != "macro_f1")  # most groups lack a class
LEAST = 10  # images, and patients; scores of a smaller group are too uncertain to show
# Lower ends, years: infants, pre-school children, older children and adolescents, adults in three bands.
AGE_BANDS = {
    "below 1 year": 0,
    "1 to below 5 years": 1,
    "5 to below 18 years": 5,
    "18 to below 40 years": 18,
    "40 to below 65 years": 40,
    "65 years or older": 65,
}


def groups(split: Manifest) -> dict[str, pd.Series]:
    """A value for each image by property; properties that are the same for all images are left out."""
    rows = split.rows
    pixels, aspect = rows["width"] * rows["height"], rows["width"] / rows["height"].clip(lower=1)
    per_patient = rows.groupby("patient")["path"].transform("size")
    properties = {name: _bands(rows[name]) if name == "age" else rows[name] for name in FROM_TABLE if name in rows}
    properties = {name: values.replace("", UNKNOWN).fillna(UNKNOWN) for name, values in properties.items()}
    properties |= {
        "image size": _halves(pixels / 1e6, "megapixels"),
        "aspect (width / height)": _halves(aspect, ""),
        "colour mode": rows["mode"].map(_colours),
        "file series": rows["path"].map(_series),
        "finding by file name": rows["path"].map(_finding),
        "images of the patient": per_patient.map(lambda count: "one" if count == 1 else "several"),
    }
    return {name: values for name, values in properties.items() if values is not None and values.nunique() > 1}


def by_group(split: Manifest, sample: Sample, probabilities: ndarray) -> list[Subgroup]:
    """Scores of every group of at least `LEAST` images and patients."""
    subgroups, shown = [], [scores.named(name, sample.finding) for name in SHOWN]
    for question, group, rows in _each(split):
        group_sample = sample.subset(rows)
        if (patients := len(np.unique(group_sample.patients))) < LEAST:
            continue
        resampled = scores.resampled(group_sample, probabilities[rows])
        subgroups.append(
            Subgroup(
                question=question,
                group=group,
                images=len(rows),
                patients=patients,
                scores=scores.summarised(group_sample, {name: resampled[name] for name in shown}),
            )
        )
    return subgroups


def too_small(split: Manifest) -> dict[str, int]:
    """Number of images of every group with fewer than `LEAST` images or patients, by `property: group`."""
    patients = scores.patients_of(split)
    return {
        f"{question}: {group}": len(rows)
        for question, group, rows in _each(split)
        if len(np.unique(patients[rows])) < LEAST
    }


def _each(split: Manifest) -> Iterator[tuple[str, str, ndarray]]:
    """Property, group, and positions of its images."""
    for question, values in groups(split).items():
        order = {band: place for place, band in enumerate(AGE_BANDS)} if question == "age" else {}
        for group in sorted(values.unique(), key=lambda value: (order.get(value, len(order)), value)):
            yield question, group, np.flatnonzero((values == group).to_numpy())


def _bands(years: pd.Series) -> pd.Series:
    """The band of each age."""
    names, lower = list(AGE_BANDS), list(AGE_BANDS.values())
    return pd.cut(years, [*lower, np.inf], right=False, labels=names).astype(object)


def _halves(values: pd.Series, unit: str) -> pd.Series | None:
    """Whether each value is above the median; None if no value is."""
    median = values.median()
    if not (values > median).any():
        return None
    text = f"{median:.2f} {unit}".strip()
    return values.map(lambda value: f"above {text}" if value > median else f"up to {text}")


def _colours(mode: str) -> str:
    return "grey" if mode in ("L", "I;16", "I", "1") or "MONOCHROME" in mode else "colour"


def _series(path: str) -> str:
    """The letters that a file name begins with: `person`, `IM`, `NORMAL2-IM`."""
    name = path.rsplit("/", 1)[-1]
    match = re.match(r"[A-Za-z]+(?:\d(?=-[A-Za-z]))?(?:-[A-Za-z]+)?", name)
    return match[0] if match else "other"


def _finding(path: str) -> str:
    match = re.search(r"bacteria|virus", path, re.IGNORECASE)
    return match[0].lower() if match else "normal or unknown"
