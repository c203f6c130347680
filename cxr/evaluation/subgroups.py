"""The same scores for parts of the images that their files can tell apart."""

import re
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy import ndarray

from cxr.datasets.manifest import Manifest
from cxr.evaluation import scores
from cxr.evaluation.scores import Sample

SHOWN = ("accuracy", "sensitivity", "specificity", "auc_pneumonia")
MIN_IMAGES = 10  # a smaller group says nothing


def groups(part: Manifest) -> dict[str, pd.Series]:
    """A value for each image by question; a question that all images answer alike is left out."""
    rows = part.rows
    pixels, aspect = rows["width"] * rows["height"], rows["width"] / rows["height"].clip(lower=1)
    found = {
        "image size": _halves(pixels / 1e6, "megapixels"),
        "aspect (width / height)": _halves(aspect, ""),
        "colour mode": rows["mode"].map(lambda mode: "grey" if mode in ("L", "I;16", "I", "1") else "colour"),
        "file series": rows["path"].map(_series),
        "finding by file name": rows["path"].map(_finding),
        "images of the patient": rows.groupby("patient")["path"].transform("size").map(
            lambda count: "one" if count == 1 else "several"),
    }  # fmt: skip
    return {name: values for name, values in found.items() if values is not None and values.nunique() > 1}


def by_group(part: Manifest, sample: Sample, probabilities: ndarray) -> list[dict[str, Any]]:
    """One entry for each group: question, group, images, patients, and scores with intervals."""
    found = []
    for question, values in groups(part).items():
        for group in sorted(values.unique()):
            rows = np.flatnonzero((values == group).to_numpy())
            if len(rows) < MIN_IMAGES:
                continue
            own = scores.resampled(sample.subset(rows), probabilities[rows])
            found.append({
                "question": question, "group": group, "images": len(rows),
                "patients": len(np.unique(sample.patients[rows])),
                "scores": {name: asdict(scores.estimate(own[name])) for name in SHOWN},
            })  # fmt: skip
    return found


def _halves(values: pd.Series, unit: str) -> pd.Series | None:
    """At or below the median, or above it; None where the files do not differ."""
    middle = values.median()
    if not (values > middle).any():
        return None
    text = f"{middle:.2f} {unit}".strip()
    return values.map(lambda value: f"above {text}" if value > middle else f"up to {text}")


def _series(path: str) -> str:
    """The letters a file name begins with: `person`, `IM`, `NORMAL2-IM`."""
    name = path.rsplit("/", 1)[-1]
    found = re.match(r"[A-Za-z]+(?:\d(?=-[A-Za-z]))?(?:-[A-Za-z]+)?", name)
    return found[0] if found else "other"


def _finding(path: str) -> str:
    found = re.search(r"bacteria|virus", path, re.IGNORECASE)
    return found[0].lower() if found else "normal or unknown"
