"""Which instances of an archive a prediction answers: those that match a query and have no results of this model yet.

The list is kept with the unfinished work. A run that was interrupted continues with it, although some instances have
their results by then, and new ones may have come.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from cxr.common import storage
from cxr.common.files import sha256_of_text
from cxr.common.storage import Place

_FILE = "instances.json"


@dataclass(frozen=True)
class Worklist:
    """Instances to answer.

    Attributes:
        request: the archive, query, model and operating point that it was made for.
        found: number of instances that match.
        digest: of all their paths.
        todo: paths of those without results.
    """

    request: str
    found: int
    digest: str
    todo: list[str]

    @classmethod
    def of(cls, request: str, paths: list[str], has_results: Callable[[str], bool]) -> "Worklist":
        """The instances `paths` that have no results yet."""
        todo = [path for path in paths if not has_results(path)]
        return cls(request, len(paths), sha256_of_text("\n".join(paths)), todo)

    @property
    def listed(self) -> str:
        """Stands for the list in the plan of a prediction: the same for all runs of the request on the same archive."""
        return f"{self.request} {self.digest}"

    def keep(self, folder: Place) -> None:
        """Write the list into the folder of unfinished work."""
        storage.write(folder / _FILE, json.dumps(asdict(self)).encode())


def kept(folder: Place, request: str) -> Worklist | None:
    """The list in a folder of unfinished work; None if there is none, or one for another request."""
    try:
        values = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    worklist = Worklist(**values)
    return worklist if worklist.request == request else None
