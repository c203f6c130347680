"""Files are written completely or not at all."""

import errno
import hashlib

import pytest

from cxr.common.files import sha256_of, write_atomic
from cxr.errors import CxrError


def test_bytes_and_the_output_of_functions_are_written(tmp_path):
    write_atomic(tmp_path / "deep/a", b"one")
    write_atomic(tmp_path / "b", lambda file: file.write(b"two"))
    assert ((tmp_path / "deep/a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"one", b"two")
    assert sha256_of(tmp_path / "b") == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_only_the_old_file(tmp_path, error):
    write_atomic(tmp_path / "a", b"old")

    def fail(file):
        file.write(b"ha")
        raise error

    with pytest.raises((CxrError, KeyboardInterrupt)) as caught:
        write_atomic(tmp_path / "a", fail)
    if isinstance(error, OSError):
        assert str(caught.value).endswith("(No space left on device); make room or use another folder")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CxrError, match="cannot be written"):
        write_atomic(tmp_path / "file/a", b"")
