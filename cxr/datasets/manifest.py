"""The manifest of a dataset: every image with its checksum, label, patient and split, and what else a table says of it.

`manifest.csv` has the rows; `split.json` has the root folder, the classes and the finding, the source and the digest of
the rows.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.common.files import write_atomic
from cxr.common.names import PNEUMONIA
from cxr.common.storage import Place, place
from cxr.errors import CxrError

COLUMNS = ["path", "sha256", "label", "patient", "split", "width", "height", "mode"]
# What a table of labels can say of an image beyond its label: text, empty if unknown, but for `age`, which is in years.
EXTRAS = ["study", "age", "sex", "view", "site", "scanner"]
SPLITS = ("train", "val", "test")
FORMAT = 1
TABLE, FACTS = "manifest.csv", "split.json"
_IDENTITY = ["path", "sha256", "label", "patient", "split"]
_AT_ONCE = 1 << 16  # rows that become text at once: about 16 MB


@dataclass(frozen=True)
class Manifest:
    """Images of a dataset under one root folder, assigned to splits.

    Attributes:
        rows: table of `COLUMNS`, and after them those of `EXTRAS` that the source has. `path` is POSIX and relative to
            `root`, `label` is one of `classes`, `patient` is unique across official splits (`train/person12`), `split`
            is one of `SPLITS`, sizes are in pixels, `mode` is the colour mode of the file, `age` is NaN if unknown.
        root: folder of the images, or its URL.
        classes: class names, in the order of logits and probabilities.
        source: origin of the data, as described by `cxr.datasets.sources`.
        finding: what all classes but the first have in common.
    """

    rows: pd.DataFrame
    root: Place
    classes: tuple[str, ...]
    source: dict[str, Any] = field(default_factory=dict)
    finding: str = PNEUMONIA

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        counts = self.rows.groupby(["split", "label"], observed=True).size()
        splits = [
            f"{split}: " + ", ".join(f"{counts.get((split, label), 0)} {label}" for label in self.classes)
            for split in SPLITS
            if (self.rows["split"] == split).any()
        ]
        return f"Manifest({len(self)} images, {self.rows['patient'].nunique()} patients; {'; '.join(splits)})"

    @property
    def extras(self) -> list[str]:
        """The columns of `EXTRAS` that the rows have."""
        return [name for name in EXTRAS if name in self.rows]

    @property
    def digest(self) -> str:
        """SHA-256 of classes, finding and rows, independent of the order of rows and of the root folder."""
        table = self.rows[[*_IDENTITY, *self.extras]].sort_values("path")
        names = json.dumps(list(self.classes)) + "\n"
        if self.finding != PNEUMONIA:
            names += json.dumps(self.finding) + "\n"
        sha = hashlib.sha256(names.encode())
        for lines in _csv(table):
            sha.update(lines)
        return sha.hexdigest()

    def split(self, split: str) -> "Manifest":
        """Return a manifest with the rows of one split."""
        return replace(self, rows=self.rows[self.rows["split"] == split].reset_index(drop=True))

    def cross_validated(self) -> "Manifest":
        """Return the same images with all outside the test split as validation images, the same for every fold."""
        return replace(self, rows=self.rows.assign(split=self.rows["split"].where(self.rows["split"] == "test", "val")))

    def labels(self) -> np.ndarray:
        """Return class indices, `int64` of shape (n,)."""
        index = {name: i for i, name in enumerate(self.classes)}
        return np.array([index[label] for label in self.rows["label"]], dtype=np.int64)

    def sizes(self) -> np.ndarray:
        """Return widths and heights in pixels, `int64` of shape (n, 2)."""
        return self.rows[["width", "height"]].to_numpy(np.int64)

    def files(self) -> list[Place]:
        """Return the full paths of the images."""
        return [self.root / path for path in self.rows["path"]]

    def counts(self) -> pd.DataFrame:
        """Count images and patients by split and label."""
        groups = self.rows.groupby(["split", "label"], sort=False, observed=True)
        table = groups.agg(images=("path", "size"), patients=("patient", "nunique"))
        all_groups = pd.MultiIndex.from_product([SPLITS, self.classes], names=["split", "label"])
        return table.reindex(all_groups, fill_value=0)

    def save(self, folder: str | Path) -> str:
        """Write `manifest.csv` and `split.json` into `folder`; returns the digest."""
        folder, digest = Path(folder), self.digest
        facts = {
            "format": FORMAT,
            "root": str(self.root),
            "classes": list(self.classes),
            "digest": digest,
            "source": self.source,
        }
        if self.finding != PNEUMONIA:
            facts["finding"] = self.finding
        write_atomic(folder / TABLE, lambda file: file.writelines(_csv(self.rows[[*COLUMNS, *self.extras]])))
        write_atomic(folder / FACTS, (json.dumps(facts, indent=2) + "\n").encode())
        return digest

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Read the files that `save` wrote; damaged or edited files raise `CxrError`."""
        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            words = dict.fromkeys([*_IDENTITY, "mode", *EXTRAS], str)
            rows = pd.read_csv(folder / TABLE, dtype=words, keep_default_na=False, encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CxrError(f"split {folder} cannot be read ({error}); run prepare_split again") from None
        if facts.get("format") != FORMAT:
            raise CxrError(
                f"split {folder} has format {facts.get('format')}, expected {FORMAT}; run prepare_split again"
            )
        if "age" in rows:
            rows["age"] = rows["age"].map(_number)
        if list(rows.columns) != [*COLUMNS, *(name for name in EXTRAS if name in rows)]:
            columns = ", ".join(rows.columns)
            raise CxrError(f"{folder / TABLE}: expected the columns {', '.join(COLUMNS)}, got {columns}")
        manifest = cls(
            rows, place(facts["root"]), tuple(facts["classes"]), facts["source"], facts.get("finding", PNEUMONIA)
        )
        if manifest.digest != facts["digest"]:
            raise CxrError(f"{folder / TABLE} was changed after prepare_split wrote it; run prepare_split again")
        return manifest


def _csv(table: pd.DataFrame) -> Iterator[bytes]:
    """A table as CSV in UTF-8, some rows at a time: the text of a million is larger than the table."""
    for start in range(0, max(1, len(table)), _AT_ONCE):
        part = table.iloc[start : start + _AT_ONCE]
        yield part.to_csv(index=False, header=not start, lineterminator="\n").encode()


def _number(text: str) -> float:
    """The number that `repr` has written, to the last digit, since the digest is that of the text; NaN for all else."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def read_verified(manifest: Manifest, index: int) -> bytes:
    """Read the bytes of an image; raises `CxrError` if they differ from those in the manifest."""
    path = manifest.root / manifest.rows["path"].iat[index]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CxrError(f"{path}: {error.strerror}; restore the image or run prepare_split again") from None
    if hashlib.sha256(data).hexdigest() != manifest.rows["sha256"].iat[index]:
        raise CxrError(f"{path} has changed since the split was made; run prepare_split again")
    return data
