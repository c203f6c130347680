"""The files below a data folder, and which of them the paths in a table mean."""

import re
from collections import defaultdict
from itertools import takewhile
from pathlib import Path, PurePosixPath

from cxr.common import storage
from cxr.common.storage import Place
from cxr.datasets.tables import examples
from cxr.errors import CxrError


class Files:
    """All files below a folder; hidden ones and symbolic links to other folders are not followed.

    Attributes:
        root: the folder.
        paths: their paths relative to `root`, POSIX.
    """

    def __init__(self, root: Place):
        self.root = root
        self.paths: set[str] = set()
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in storage.below(root):
            name = path.rpartition("/")[2]
            if not name.startswith("."):
                self.paths.add(path)
                self._by_name[name].append(path)

    def find(self, given: list[str]) -> list[str | None]:
        """The file that each path means; None if there is none.

        A path is relative to the folder. A file that is not there may stand below more folders (`0001.png` as
        `images_001/images/0001.png`), or without those that all paths begin with, if the folder is one of them.

        Raises:
            CxrError: paths lead out of the folder, or mean several files with different content.
        """
        paths = [_normalised(path) for path in given]
        self._refuse([path for path, inside in zip(given, paths, strict=True) if inside is None])
        inside = [path for path in paths if path is not None]
        shared = _shared_folders(inside)
        found, ambiguous = [], []
        for path in inside:
            candidates = self._candidates(path, shared)
            if len(candidates) > 1:
                ambiguous.append(f"{path} ({examples(candidates)})")
            found.append(candidates[0] if candidates else None)
        if ambiguous:
            raise CxrError(
                f"{len(ambiguous):,} paths of the table mean several files below {self.root}: {examples(ambiguous)}; "
                "give data.columns.path with the folders above the file, as in '{site}/{file}'"
            )
        self._refuse([path for path, file in zip(inside, found, strict=True) if self._outside(path, file)])
        return found

    def _candidates(self, path: str, shared: int) -> list[str]:
        """Files that a path can mean; those of the same content count once, by the shortest path."""
        if path in self.paths:
            return [path]
        parts = path.split("/")
        below = [file for file in self._by_name.get(parts[-1], []) if file.endswith(f"/{path}")]
        if not below:
            shorter = ["/".join(parts[dropped:]) for dropped in range(1, shared + 1)]
            return [file for file in shorter if file in self.paths][:1]
        if len(below) > 1:
            below.sort(key=lambda file: (file.count("/"), file))
            by_content: dict[str, str] = {}
            for file in below:
                by_content.setdefault(storage.sha256_of(self.root / file), file)
            below = list(by_content.values())
        return below

    def _outside(self, path: str, file: str | None) -> bool:
        """Whether a symbolic link leads out of the folder, to the file or to a folder on its path."""
        if not isinstance(self.root, Path):  # no store has links
            return False
        place = self.root / (file or path)
        if file is not None and not place.is_symlink():
            return False
        return place.exists() and not place.resolve().is_relative_to(self.root.resolve())

    def _refuse(self, outside: list[str]) -> None:
        if outside:
            raise CxrError(
                f"{len(outside):,} paths of the table lead out of the data folder {self.root}: {examples(outside)}; "
                "expected paths below it: not empty or absolute, without '..' and symbolic links to other places"
            )


def _normalised(path: str) -> str | None:
    """A path with `/` between its parts; None if it is empty, absolute or goes up."""
    pure = PurePosixPath(path.replace("\\", "/"))
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or re.match(r"[A-Za-z]:", path):
        return None
    return str(pure)


def _shared_folders(paths: list[str]) -> int:
    """How many folders all paths begin with."""
    first, last = (path.split("/")[:-1] for path in (min(paths, default=""), max(paths, default="")))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
