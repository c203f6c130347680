"""A file is old or new, never half."""

import errno
import hashlib

import pytest

from cxr.common.files import sha256_of, write_atomic
from cxr.errors import CxrError


def test_bytes_and_functions_are_written(tmp_path):
    write_atomic(tmp_path / "deep/a", b"one")
    write_atomic(tmp_path / "b", lambda file: file.write(b"two"))
    assert ((tmp_path / "deep/a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"one", b"two")
    assert sha256_of(tmp_path / "b") == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_breaks_off_leaves_the_old_file_and_nothing_else(tmp_path, error):
    write_atomic(tmp_path / "a", b"old")

    def half(file):
        file.write(b"ha")
        raise error

    with pytest.raises((CxrError, KeyboardInterrupt)) as caught:
        write_atomic(tmp_path / "a", half)
    if isinstance(error, OSError):
        assert str(caught.value).endswith("(No space left on device); make room or use another place")
    assert [f.name for f in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CxrError, match="cannot be written"):
        write_atomic(tmp_path / "file/a", b"")
