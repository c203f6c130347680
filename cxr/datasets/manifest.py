"""The manifest: every image of a split with its checksum, label, patient and part.

`manifest.csv` has the rows, `split.json` the root folder, the classes and the digest of the rows.
"""

import hashlib
import io
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.common.files import write_atomic
from cxr.errors import CxrError

COLUMNS = ["path", "sha256", "label", "patient", "split", "width", "height", "mode"]
SPLITS = ("train", "val", "test")
FORMAT = 1
TABLE, FACTS = "manifest.csv", "split.json"
_IDENTITY = ["path", "sha256", "label", "patient", "split"]


@dataclass(frozen=True)
class Manifest:
    """Rows of images under one root folder.

    Attributes:
        rows: a table of `COLUMNS`. `path` is POSIX and relative to `root`, `label` one of `classes`, `patient` unique
            over the official parts (`train/person12`), `split` one of `SPLITS`; sizes are in pixels, `mode` is the
            file's colour mode.
        root: the folder that holds the images.
        classes: class names; the place of a name is its index in logits and probabilities.
        source: where the data come from, as `cxr.datasets.sources` describes it.
    """

    rows: pd.DataFrame
    root: Path
    classes: tuple[str, ...]
    source: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        counts = self.rows.groupby(["split", "label"], observed=True).size()
        parts = [
            f"{split}: " + ", ".join(f"{counts.get((split, label), 0)} {label}" for label in self.classes)
            for split in SPLITS
            if (self.rows["split"] == split).any()
        ]
        return f"Manifest({len(self)} images, {self.rows['patient'].nunique()} patients; {'; '.join(parts)})"

    @property
    def digest(self) -> str:
        """SHA-256 over classes and what identifies each row; the same for any order of rows and any root."""
        table = self.rows[_IDENTITY].sort_values("path").to_csv(index=False, lineterminator="\n")
        return hashlib.sha256((json.dumps(list(self.classes)) + "\n" + table).encode()).hexdigest()

    def split(self, split: str) -> "Manifest":
        """The rows of one split."""
        return replace(self, rows=self.rows[self.rows["split"] == split].reset_index(drop=True))

    def labels(self) -> np.ndarray:
        """Class indices, `int64` of shape (n,)."""
        index = {name: i for i, name in enumerate(self.classes)}
        return np.array([index[label] for label in self.rows["label"]], dtype=np.int64)

    def files(self) -> list[Path]:
        """Full paths of the images."""
        return [self.root / path for path in self.rows["path"]]

    def counts(self) -> pd.DataFrame:
        """Images and patients by split and label."""
        groups = self.rows.groupby(["split", "label"], sort=False, observed=True)
        table = groups.agg(images=("path", "size"), patients=("patient", "nunique"))
        every = pd.MultiIndex.from_product([SPLITS, self.classes], names=["split", "label"])
        return table.reindex(every, fill_value=0)

    def save(self, folder: str | Path) -> None:
        """Write `manifest.csv` and `split.json` into `folder`."""
        folder = Path(folder)
        facts = {
            "format": FORMAT,
            "root": str(self.root),
            "classes": list(self.classes),
            "digest": self.digest,
            "source": self.source,
        }
        table = self.rows[COLUMNS].to_csv(index=False, lineterminator="\n")
        write_atomic(folder / TABLE, table.encode())
        write_atomic(folder / FACTS, (json.dumps(facts, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """Read what `save` wrote; a table that is damaged or was edited raises `CxrError`."""
        folder = Path(folder)
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            text = (folder / TABLE).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CxrError(f"split {folder} cannot be read ({error}); run prepare_split again") from None
        if facts.get("format") != FORMAT:
            raise CxrError(f"split {folder} has format {facts.get('format')}, needed is {FORMAT}; run prepare_split")
        rows = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys([*_IDENTITY, "mode"], str), keep_default_na=False)
        if list(rows.columns) != COLUMNS:
            raise CxrError(f"{folder / TABLE} has the columns {', '.join(rows.columns)}; needed: {', '.join(COLUMNS)}")
        manifest = cls(rows, Path(facts["root"]), tuple(facts["classes"]), facts["source"])
        if manifest.digest != facts["digest"]:
            raise CxrError(f"{folder / TABLE} is not as prepare_split wrote it; run prepare_split again")
        return manifest


def read_verified(manifest: Manifest, index: int) -> bytes:
    """The bytes of one image, which must be those that the manifest lists; else `CxrError` names the file."""
    path = manifest.root / manifest.rows["path"].iat[index]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CxrError(f"{path}: {error.strerror}; the images moved since the split: run prepare_split again") from None
    if hashlib.sha256(data).hexdigest() != manifest.rows["sha256"].iat[index]:
        raise CxrError(f"{path} has changed since the split was made; run prepare_split again")
    return data
