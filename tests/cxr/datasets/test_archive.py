"""Untrusted archives are unpacked once and completely, or refused without leaving files."""

import os
import stat
import subprocess
import sys
import time
import zipfile

import pytest

from cxr.datasets import archive, labelled
from cxr.errors import CxrError
from tests.helpers import ROOT, settings_with


def zipped(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def left_in(folder) -> list[str]:
    """Everything in a folder except for locks."""
    return [file.name for file in folder.iterdir() if file.suffix != ".lock"]


def test_images_are_unpacked_once(tmp_path, monkeypatch):
    file = zipped(tmp_path / "a.zip", {"train/NORMAL/x.jpeg": b"1", "__MACOSX/._x.jpeg": b"2", "readme.txt": b"3"})
    folder, digest = archive.unpack(file, tmp_path / "cache")
    assert [f.relative_to(folder).as_posix() for f in folder.rglob("*.jpeg")] == ["train/NORMAL/x.jpeg"]
    assert not list(folder.rglob("readme.txt"))
    assert digest == archive.sha256_of(file)
    monkeypatch.setattr(zipfile, "ZipFile", None)  # the second time, the archive is not opened
    assert archive.unpack(file, tmp_path / "cache") == (folder, digest)


def test_the_table_of_labels_is_unpacked_with_the_images(tmp_path):
    members = {"set/a.png": b"1", "set/b.png": b"2", "set/labels.csv": b"file,finding\na.png,normal\nb.png,pneumonia\n"}
    members |= {"extra/more.TSV": b"3", "__MACOSX/labels.csv": b"4", "set/.hidden.csv": b"5", "set/setup.py": b"6"}
    root, _ = archive.unpack(zipped(tmp_path / "a.zip", members), tmp_path / "cache")
    found = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
    assert found == {"set/a.png", "set/b.png", "set/labels.csv", "extra/more.TSV", archive.DONE}
    names = {"labels": "set/labels.csv", "columns.path": "file", "columns.label": "finding", "classes": 2}
    images = labelled.listing(root, settings_with({f"data.{name}": value for name, value in names.items()}).data).images
    assert [(image.path, image.label) for image in images] == [("set/a.png", "normal"), ("set/b.png", "pneumonia")]


def test_a_folder_that_an_earlier_version_unpacked_without_tables_is_not_complete(tmp_path):
    file = zipped(tmp_path / "a.zip", {"NORMAL/x.jpeg": b"1", "labels.csv": b"file\nx.jpeg\n"})
    folder, digest = archive.unpack(file, tmp_path / "cache")
    (folder / "labels.csv").unlink()
    (folder / archive.DONE).write_text(digest)  # as it was then
    again, _ = archive.unpack(file, tmp_path / "cache")
    assert again == folder and (folder / "labels.csv").exists() and left_in(tmp_path / "cache") == [folder.name]


def test_interrupted_unpacking_is_repeated(tmp_path):
    file = zipped(tmp_path / "a.zip", {"NORMAL/x.jpeg": b"1"})
    folder, _ = archive.unpack(file, tmp_path / "cache")
    (folder / archive.DONE).unlink()
    (folder / "NORMAL/x.jpeg").write_bytes(b"")
    (tmp_path / "cache" / f"{archive.SCRATCH}{folder.name}-killed").mkdir()
    again, _ = archive.unpack(file, tmp_path / "cache")
    assert left_in(tmp_path / "cache") == [folder.name]
    assert (again / "NORMAL/x.jpeg").read_bytes() == b"1"


UNPACK = """
import sys, time
from pathlib import Path
from cxr.datasets import archive
while not Path("go").exists():
    time.sleep(0.001)
folder, _ = archive.unpack(Path("a.zip"), Path("cache"))
for _ in range(40):
    assert len(list(folder.rglob("*.jpeg"))) == 2000, "the folder has lost its images"
    time.sleep(0.01)
"""


@pytest.mark.slow
def test_several_processes_unpack_one_archive_at_once(tmp_path):
    zipped(tmp_path / "a.zip", {f"NORMAL/{number}.jpeg": bytes([number % 256]) * 9 for number in range(2000)})
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", UNPACK]
    started = [subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    time.sleep(2)  # to import what they need
    (tmp_path / "go").touch()
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    assert len(left_in(tmp_path / "cache")) == 1


@pytest.mark.parametrize("name", ["../x.jpeg", "/x.jpeg", "a/../../x.jpeg", "..\\x.jpeg", "C:\\x.jpeg", "../x.csv"])
def test_members_outside_the_target_folder_are_refused(tmp_path, name):
    file = zipped(tmp_path / "a.zip", {"NORMAL/ok.jpeg": b"1", name: b"evil"})
    with pytest.raises(CxrError, match="lies outside the target folder; do not trust this archive"):
        archive.unpack(file, tmp_path / "deep/cache")
    assert not list(tmp_path.rglob("x.*"))
    assert not left_in(tmp_path / "deep/cache")


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("NORMAL/x.jpeg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(CxrError, match="is a link"):
        archive.unpack(tmp_path / "a.zip", tmp_path / "cache")


@pytest.mark.parametrize("name", ["NORMAL/x.jpeg", "labels.csv"])
def test_a_zip_bomb_is_refused(tmp_path, name):
    file = zipped(tmp_path / "a.zip", {"NORMAL/x.jpeg": b"", name: bytes(5_000_000)})
    with pytest.raises(CxrError, match="would unpack to 5,000,000 bytes; expected at most"):
        archive.unpack(file, tmp_path / "cache")


def test_a_truncated_archive_leaves_no_files(tmp_path):
    file = zipped(tmp_path / "a.zip", {f"NORMAL/{i}.jpeg": bytes(range(256)) for i in range(20)})
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CxrError, match=r"is truncated or damaged .*download it again"):
        archive.unpack(file, tmp_path / "cache")
    assert not left_in(tmp_path / "cache")


def test_a_damaged_member_leaves_no_files(tmp_path):
    file = zipped(tmp_path / "a.zip", {"NORMAL/x.jpeg": bytes(range(256)) * 9})
    content = bytearray(file.read_bytes())
    content[60:70] = bytes(10)
    file.write_bytes(content)
    with pytest.raises(CxrError, match="damaged"):
        archive.unpack(file, tmp_path / "cache")
    assert not left_in(tmp_path / "cache")


def test_a_member_whose_name_is_not_utf8_is_refused(tmp_path):
    file = zipped(tmp_path / "a.zip", {"NORMAL/\xe9.jpeg": b"1"})
    file.write_bytes(file.read_bytes().replace("\xe9".encode(), b"\xff\xff"))
    with pytest.raises(CxrError, match="is truncated or damaged .*utf-8"):
        archive.unpack(file, tmp_path / "cache")


def test_a_zip_without_images_is_refused(tmp_path):
    with pytest.raises(CxrError, match="holds no images"):
        archive.unpack(zipped(tmp_path / "a.zip", {"readme.txt": b"3", "labels.csv": b"4"}), tmp_path / "cache")
