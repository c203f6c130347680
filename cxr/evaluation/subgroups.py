"""Scores of groups of images that their files can tell apart."""

import re

import numpy as np
import pandas as pd
from numpy import ndarray

from cxr.datasets.manifest import Manifest
from cxr.evaluation import scores
from cxr.evaluation.results import Subgroup
from cxr.evaluation.scores import SUMMARY, Sample

SHOWN = tuple(name for name in SUMMARY if name != "macro_f1")  # most groups lack a class
MIN_IMAGES = 10  # scores of a smaller group are too uncertain to show


def groups(split: Manifest) -> dict[str, pd.Series]:
    """A value for each image by property; properties that are the same for all images are left out."""
    rows = split.rows
    pixels, aspect = rows["width"] * rows["height"], rows["width"] / rows["height"].clip(lower=1)
    per_patient = rows.groupby("patient")["path"].transform("size")
    properties = {
        "image size": _halves(pixels / 1e6, "megapixels"),
        "aspect (width / height)": _halves(aspect, ""),
        "colour mode": rows["mode"].map(lambda mode: "grey" if mode in ("L", "I;16", "I", "1") else "colour"),
        "file series": rows["path"].map(_series),
        "finding by file name": rows["path"].map(_finding),
        "images of the patient": per_patient.map(lambda count: "one" if count == 1 else "several"),
    }
    return {name: values for name, values in properties.items() if values is not None and values.nunique() > 1}


def by_group(split: Manifest, sample: Sample, probabilities: ndarray) -> list[Subgroup]:
    """Scores of every group of at least `MIN_IMAGES` images."""
    subgroups, shown = [], [scores.named(name, sample.finding) for name in SHOWN]
    for question, values in groups(split).items():
        for group in sorted(values.unique()):
            rows = np.flatnonzero((values == group).to_numpy())
            if len(rows) < MIN_IMAGES:
                continue
            resampled = scores.resampled(sample.subset(rows), probabilities[rows])
            subgroups.append(
                Subgroup(
                    question=question,
                    group=group,
                    images=len(rows),
                    patients=len(np.unique(sample.patients[rows])),
                    scores={name: scores.estimate(resampled[name]) for name in shown},
                )
            )
    return subgroups


def _halves(values: pd.Series, unit: str) -> pd.Series | None:
    """Whether each value is above the median; None if no value is."""
    median = values.median()
    if not (values > median).any():
        return None
    text = f"{median:.2f} {unit}".strip()
    return values.map(lambda value: f"above {text}" if value > median else f"up to {text}")


def _series(path: str) -> str:
    """The letters that a file name begins with: `person`, `IM`, `NORMAL2-IM`."""
    name = path.rsplit("/", 1)[-1]
    match = re.match(r"[A-Za-z]+(?:\d(?=-[A-Za-z]))?(?:-[A-Za-z]+)?", name)
    return match[0] if match else "other"


def _finding(path: str) -> str:
    match = re.search(r"bacteria|virus", path, re.IGNORECASE)
    return match[0].lower() if match else "normal or unknown"
