"""Files are written completely or not at all."""

import errno
import hashlib
import os
import shutil
import stat

import pytest

from cxr.common.files import check_digest, publish, remove_folder, sha256_of, write_atomic
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


def test_a_finished_folder_gets_its_name_and_a_file_replaces_another(tmp_path):
    (tmp_path / "scratch/deep").mkdir(parents=True)
    (tmp_path / "scratch/deep/a").write_bytes(b"one")
    publish(tmp_path / "scratch", tmp_path / "folder")
    for content in (b"old", b"new"):
        (tmp_path / "scratch").write_bytes(content)
        publish(tmp_path / "scratch", tmp_path / "file")
    assert (tmp_path / "folder/deep/a").read_bytes() == b"one"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_folder_does_not_replace_a_full_one(tmp_path):
    for name in ("scratch", "folder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    with pytest.raises(OSError, match="not empty"):
        publish(tmp_path / "scratch", tmp_path / "folder")
    assert (tmp_path / "folder/a").read_text() == "folder" and (tmp_path / "scratch/a").exists()


def test_a_folder_loses_its_name_before_its_files(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").write_text("")

    def kill(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(tmp_path / "folder", ".gone-")
    assert not (tmp_path / "folder").exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".gone-")
    remove_folder(left, ".gone-")
    assert not list(tmp_path.iterdir())


def test_a_file_system_that_cannot_sync_folders_is_no_error(tmp_path, monkeypatch):
    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    code = errno.EINVAL
    write_atomic(tmp_path / "a", b"one")
    assert (tmp_path / "a").read_bytes() == b"one"
    code = errno.EIO
    with pytest.raises(CxrError, match="Input/output error"):
        write_atomic(tmp_path / "a", b"two")


def test_a_file_that_is_not_the_one_that_was_named_is_told_with_what_to_do(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"network")
    wanted = sha256_of(file)
    check_digest(file, wanted, owner="version 3", config="service.json", remedy="register it again")
    file.write_bytes(b"net")
    with pytest.raises(CxrError) as error:
        check_digest(file, wanted, owner="version 3", config="service.json", remedy="register it again")
    assert str(error.value) == (
        "version 3: model.onnx is not the one that service.json names (truncated or replaced); register it again"
    )
