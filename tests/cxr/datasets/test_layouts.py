"""Class, patient and official split are read from folder and file names in every known layout."""

import pytest

from cxr.datasets.layouts import ListedImage, named_as_published, scan
from cxr.errors import CxrError

OFFICIAL = [
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0587-0001-0002.jpeg",
    "train/PNEUMONIA/person12_bacteria_34.jpeg",
    "train/PNEUMONIA/person12_virus_35.jpeg",
    "test/PNEUMONIA/person12_virus_5.jpeg",
    "test/PNEUMONIA/person1180_virus_2010_1.jpeg",
]


def touch(root, paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return root


def by_path(images: list[ListedImage]) -> dict[str, ListedImage]:
    return {image.path: image for image in images}


def test_the_official_layout_is_read(tmp_path):
    images = by_path(scan(touch(tmp_path, OFFICIAL)))
    assert set(images) == set(OFFICIAL)
    assert [images[path].label for path in OFFICIAL] == ["normal", "normal", "bacteria", "virus", "virus", "virus"]
    assert [images[path].official_split for path in OFFICIAL] == ["train"] * 4 + ["test"] * 2
    # Bacteria and virus share the numbers of patients, so this is one child.
    assert images[OFFICIAL[2]].patient == images[OFFICIAL[3]].patient == "person12"
    assert images[OFFICIAL[5]].patient == "person1180"


def test_normal_images_with_the_same_number_are_of_one_patient(tmp_path):
    names = ["NORMAL/IM-0115-0001.jpeg", "NORMAL/NORMAL2-IM-0115-0001.jpeg"]
    images = scan(touch(tmp_path, [*names, "PNEUMONIA/person1_bacteria_1.jpeg", "PNEUMONIA/person2_virus_1.jpeg"]))
    assert len({image.patient for image in images if image.label == "normal"}) == 1


def test_names_of_later_versions_are_read(tmp_path):
    names = ["BACTERIA-1083680-0012.jpeg", "NORMAL-28501-0001.jpeg", "VIRUS-99-0001.jpeg", "VIRUS-99-0002.jpeg"]
    images = scan(touch(tmp_path, [f"train/x/{name}" for name in names]))
    assert [image.label for image in images] == ["bacteria", "normal", "virus", "virus"]
    assert images[2].patient == images[3].patient
    assert images[0].patient != images[1].patient


def test_the_nested_copy_of_kaggle_is_ignored(tmp_path):
    paths = [f"{folder}/{path}" for folder in ("chest_xray", "chest_xray/chest_xray") for path in OFFICIAL]
    paths += ["chest_xray/val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "chest_xray/__MACOSX/train/NORMAL/._IM-0115-0001.jpeg"]
    images = scan(touch(tmp_path, [*paths, "chest_xray/.DS_Store", "chest_xray/train/NORMAL/.DS_Store"]))
    assert len(images) == len(OFFICIAL) + 1
    assert not any("chest_xray/chest_xray" in image.path for image in images)
    # Kaggle took its `val` from the training split, where other images of the same children remain.
    assert next(image for image in images if "1427" in image.path).official_split == "train"


SITES = [f"site{site}/{name}" for site in "AB" for name in ("NORMAL/0001.png", "PNEUMONIA/person1_virus_1.png")]


def test_two_sites_with_the_same_file_names_keep_all_their_images(tmp_path):
    touch(tmp_path, SITES)
    for number, path in enumerate(SITES):
        (tmp_path / path).write_bytes(bytes([number]) * 9)  # of the same size, but different
    (tmp_path / "siteB/NORMAL/0001.png").write_bytes(b"of another size")
    images = by_path(scan(tmp_path, 2))
    assert list(images) == sorted(SITES)
    # Nobody knows whether the sites number their patients together: as one patient, they cannot leak.
    assert images[SITES[0]].patient == images[SITES[2]].patient
    assert images[SITES[1]].patient == images[SITES[3]].patient


def test_images_beside_an_official_split_are_for_training_and_share_its_patients(tmp_path):
    paths = ["siteA/train/PNEUMONIA/person1_virus_1.png", "siteA/test/NORMAL/IM-1-1.png"]
    beside = ["siteB/PNEUMONIA/person1_virus_2.png", "siteB/NORMAL/IM-1-1.png"]
    images = by_path(scan(touch(tmp_path, [*paths, *beside]), 2))
    assert [images[path].official_split for path in [*paths, *beside]] == ["train", "test", "train", "train"]
    assert images[paths[0]].patient == images[beside[0]].patient


def test_a_copy_is_known_by_its_content_and_the_log_says_where(tmp_path, caplog):
    caplog.set_level("INFO")
    touch(tmp_path, SITES)
    (tmp_path / SITES[3]).write_bytes(b"y")
    assert list(by_path(scan(tmp_path, 2))) == [SITES[0], SITES[1], SITES[3]]
    assert "copies left out, by name and content: 1 (1 in siteB)" in caplog.text
    caplog.clear()
    (tmp_path / SITES[2]).unlink()
    assert len(scan(tmp_path, 2)) == 3
    assert "copies" not in caplog.text


def test_a_file_that_cannot_be_read_is_no_copy(tmp_path, monkeypatch):
    touch(tmp_path, SITES)

    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("cxr.common.storage.sha256_of", refused)  # file modes do not stop root
    assert list(by_path(scan(tmp_path, 2))) == sorted(SITES)


def test_two_classes_do_not_need_the_kind_of_pneumonia(tmp_path):
    root = touch(tmp_path, ["NORMAL/a.png", "PNEUMONIA/b.png"])
    assert [image.label for image in scan(root, 2)] == ["normal", "pneumonia"]
    with pytest.raises(CxrError, match=r"neither folder nor name says bacteria or virus.*data\.classes=2"):
        scan(root, 3)


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["notes.txt"], "holds no X-rays in a known layout"),
        (["stray.jpeg"], "holds no X-rays in a known layout"),
        (["NORMAL/IM-1-1.jpeg", "PNEUMONIA/person1_virus_1.jpeg"], "no images of bacteria .seen: 1 normal, 1 virus"),
        (["NORMAL/VIRUS-1-1.jpeg"], "the folder says normal, the name says virus"),
    ],
)
def test_incomplete_or_inconsistent_folders_are_refused(tmp_path, paths, words):
    with pytest.raises(CxrError, match=words):
        scan(touch(tmp_path, paths))


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(CxrError, match="is not a folder; expected a folder"):
        scan(tmp_path / "none")


def test_the_kermany_dataset_is_read(real_data):
    images = scan(real_data)
    assert len(images) == 5216
    assert len({(image.official_split, image.patient) for image in images}) == 2635


OWN = [
    "x/train/Healthy/person3_1.png",
    "x/train/TUBERCULOSIS/person3_2.png",
    "x/test/healthy/IM-0007-0001.png",
    "x/test/tuberculosis/a.png",
    "x/stray.png",
    "x/train/other/b.png",
]


def test_folders_of_the_users_own_classes(tmp_path, caplog):
    with caplog.at_level("INFO"):
        images = by_path(scan(touch(tmp_path, OWN), ["healthy", "tuberculosis"]))
    assert {path: (image.label, image.patient, image.official_split) for path, image in images.items()} == {
        OWN[0]: ("healthy", "person3", "train"),
        OWN[1]: ("tuberculosis", "person3", "train"),
        OWN[2]: ("healthy", "healthy-0007", "test"),
        OWN[3]: ("tuberculosis", "tuberculosis-a", "test"),
    }
    assert "left out: 2 images in no folder of a class" in caplog.text


def test_folders_that_lack_one_of_the_users_classes_are_refused(tmp_path):
    root = touch(tmp_path, ["healthy/a.png", "NORMAL/b.png"])
    with pytest.raises(CxrError, match="no images of tuberculosis .seen: 1 healthy"):
        scan(root, ["healthy", "tuberculosis"])
    with pytest.raises(CxrError, match="files in folders ill and well, with or without train"):
        scan(root, ["ill", "well"])


def test_a_published_dataset_is_known_by_the_names_of_its_files():
    published = [
        "train/PNEUMONIA/person12_virus_35.jpeg",
        "NORMAL/NORMAL2-IM-0587-0001.jpeg",
        "VIRUS-1083680-0012.jpeg",
    ]
    assert named_as_published(published * 10 + ["NORMAL/scan.png"])
    assert not named_as_published(["NORMAL/a.png", "PNEUMONIA/b.png", *published])
