"""Figures that no test looks at are not drawn: each takes half a second, and an evaluation has more than a dozen.

What replaces `Figure.savefig` writes one picture of each format, so that reports embed and steps log a file as ever.
The first `main` of the fixture `workflow` draws, and so does the search whose picture a test opens. That all figures
can be drawn, without a warning, is held in `tests/cxr`.
"""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:  # forks that import nothing else do without it
    from matplotlib.figure import Figure

VARIABLE = "CXR_TEST_UNDRAWN"  # tells a fork of `preloaded`
PICTURES = {
    "png": base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    ),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>',
}


def save(figure: "Figure", target: Path | BinaryIO, *, format: str = "", **options: object) -> None:
    """Takes the place of `Figure.savefig`, as steps and reports call it."""
    picture = PICTURES[format or target.suffix.removeprefix(".")]
    if isinstance(target, Path):
        target.write_bytes(picture)
    else:
        target.write(picture)
