"""A path of a table is the file it names, or one found without guessing; nothing outside the folder is read."""

import pytest

from cxr.datasets.files import Files
from cxr.errors import CxrError


def make(root, *paths, content=None):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes((content or path).encode())
    return root


def test_a_file_is_found_below_more_folders_or_without_those_that_all_paths_begin_with(tmp_path):
    make(tmp_path, "images_001/images/1.png", "images_002/images/2.png", "3.png")
    assert Files(tmp_path).find(["1.png", "images/2.png", "3.png", "4.png"]) == [
        "images_001/images/1.png",
        "images_002/images/2.png",
        "3.png",
        None,
    ]
    make(tmp_path, "train/p1/1.jpg", "train/p2/1.jpg")
    given = ["Set-v1/train/p1/1.jpg", "Set-v1/train/p2/1.jpg", "Set-v1/train/p3/1.jpg"]
    assert Files(tmp_path).find(given) == ["train/p1/1.jpg", "train/p2/1.jpg", None]


def test_a_missing_image_is_never_taken_from_another_patient(tmp_path):
    make(tmp_path, "p2/study1/view1.jpg", "view1.jpg")
    assert Files(tmp_path).find(["p1/study1/view1.jpg", "p2/study1/view1.jpg"]) == [None, "p2/study1/view1.jpg"]


def test_two_sites_with_the_same_file_names_are_two_images(tmp_path):
    make(tmp_path, "siteA/NORMAL/0001.png", "siteB/NORMAL/0001.png")
    given = ["siteA/NORMAL/0001.png", "siteB/NORMAL/0001.png"]
    assert Files(tmp_path).find(given) == given
    with pytest.raises(
        CxrError, match=r"1 paths of the table mean several files .*siteA/NORMAL/0001\.png, siteB/NORMAL"
    ):
        Files(tmp_path).find(["0001.png"])


def test_copies_by_content_are_one_file(tmp_path):
    make(tmp_path, "x/0001.png", "x/x/0001.png", content="same")
    assert Files(tmp_path).find(["0001.png"]) == ["x/0001.png"]


def test_windows_separators_are_read(tmp_path):
    assert Files(make(tmp_path, "a/b.png")).find(["a\\b.png", "./a//b.png"]) == ["a/b.png", "a/b.png"]


@pytest.mark.parametrize("path", ["../b.png", "a/../../b.png", "/etc/passwd", "C:\\b.png", "", "file.png", "dir/b.png"])
def test_paths_out_of_the_folder_are_refused(tmp_path, path):
    root, outside = make(tmp_path / "root", "a.png"), make(tmp_path / "outside", "b.png")
    (root / "file.png").symlink_to(outside / "b.png")
    (root / "dir").symlink_to(outside, target_is_directory=True)
    with pytest.raises(CxrError, match="1 paths of the table lead out of the data folder"):
        Files(root).find(["a.png", path])


def test_a_link_to_a_file_of_the_folder_is_followed(tmp_path):
    make(tmp_path, "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert Files(tmp_path).find(["b.png"]) == ["b.png"]
