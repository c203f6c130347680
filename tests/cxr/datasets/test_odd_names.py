"""Whatever a file is called, the manifest names it exactly, or it is listed as unreadable with its name escaped."""

import logging
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cxr.common.names import is_printable, printable
from cxr.datasets import inspection, layouts, leakage
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.errors import CxrError
from tests.helpers import png

PICTURE = png(np.arange(400, dtype=np.uint8).reshape(20, 20))
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# Any bytes that a file system takes, and texts full of what breaks tables.
NAMES = st.one_of(
    st.binary(min_size=1, max_size=60),
    st.text("\r\n\t\x1b\x85\u2028\u202e\ufeff\xa0,;\"'\\| ab=.é胸", min_size=1, max_size=40).map(os.fsencode),
).filter(lambda name: not {b"/", b"\0"} & {name[i : i + 1] for i in range(len(name))} and not name.startswith(b"."))


class Heard(logging.Handler):
    """Keeps every line of the log."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@pytest.fixture(scope="module")
def heard():
    """What the datasets log."""
    handler, logger = Heard(), logging.getLogger("cxr.datasets")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def laid_out(root: Path, odd: str) -> str:
    """A dataset of two images, one of them at the path `odd` below NORMAL; returns that path."""
    for path in (f"NORMAL/{odd}", "PNEUMONIA/plain.png"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(PICTURE)
    return f"NORMAL/{odd}"


@settings(max_examples=60, deadline=None)
@given(name=NAMES, is_folder=st.booleans())
@example(name=b"a\rb", is_folder=False)
@example(name=b"a\nb", is_folder=True)
@example(name=b"\xff", is_folder=False)
@example(name=b"\x1b]0;owned\x07", is_folder=False)
@example(name=b' "NA", ', is_folder=False)
def test_names_round_trip_or_are_refused(heard, name, is_folder):
    heard.clear()
    text = os.fsdecode(name)
    if is_folder and text.lower() in ("train", "val", "test", "normal", "pneumonia", "__macosx"):
        return  # of the layout
    with tempfile.TemporaryDirectory() as folder:
        path = laid_out(Path(folder), f"{text}/x.png" if is_folder else f"{text}.png")
        table, unreadable = inspection.survey(Path(folder), layouts.scan(Path(folder), 2), max_unreadable=0.6)
        if is_printable(path):
            assert unreadable == [] and path in set(table["path"])
        else:
            assert [shown for shown, _ in unreadable] == [printable(path)]
        kept, _ = leakage.resolve(table.assign(split="test"), 6)
        manifest = Manifest(kept[COLUMNS], Path(folder), ("normal", "pneumonia"))
        manifest.save(Path(folder, "split"))
        loaded = Manifest.load(Path(folder, "split"))
        assert list(loaded.rows["path"]) == list(manifest.rows["path"])
        assert list(loaded.rows["patient"]) == list(manifest.rows["patient"])
        assert all(file.read_bytes() == PICTURE for file in loaded.files())
    assert not [line for line in heard if CONTROL.search(line)]


@pytest.mark.parametrize("name", ["a\x1b[2Jb_unknown.png", "VIRUS-1-\x1b[2J.png"])
def test_errors_show_names_escaped(tmp_path, name):
    laid_out(tmp_path, "x.png")
    for folder in ("PNEUMONIA", "NORMAL"):
        (tmp_path / folder / name).write_bytes(PICTURE)
    with pytest.raises(CxrError, match=re.escape(r"\x1b[2J")) as caught:
        layouts.scan(tmp_path)
    assert not CONTROL.search(str(caught.value))


def test_skipped_files_and_copies_are_logged_escaped(tmp_path, heard):
    heard.clear()
    laid_out(tmp_path, "x.png")
    laid_out(tmp_path / "copy\x1b[2J", "x.png")
    (tmp_path / "notes\r").write_text("")
    assert len(layouts.scan(tmp_path, 2)) == 2
    assert r"skipped 1 files that are not images (notes\r)" in heard
    assert r"copies left out, by name and content: 2 (2 in copy\x1b[2J)" in heard


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_listed_as_unreadable(tmp_path):
    laid_out(tmp_path, "x.png")
    os.mkfifo(tmp_path / "NORMAL/pipe.png")
    _, unreadable = inspection.survey(tmp_path, layouts.scan(tmp_path, 2), max_unreadable=0.6)
    assert unreadable == [("NORMAL/pipe.png", "not a regular file")]
