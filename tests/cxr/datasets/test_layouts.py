"""What folders and names say, in every layout in which the set is found."""

import pytest

from cxr.datasets.layouts import Found, scan
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


def by_path(found: list[Found]) -> dict[str, Found]:
    return {item.path: item for item in found}


def test_the_official_layout(tmp_path):
    found = by_path(scan(touch(tmp_path, OFFICIAL)))
    assert set(found) == set(OFFICIAL)
    assert [found[p].label for p in OFFICIAL] == ["normal", "normal", "bacteria", "virus", "virus", "virus"]
    assert [found[p].part for p in OFFICIAL] == ["train"] * 4 + ["test"] * 2
    # One number space for bacteria and virus: this is one child.
    assert found[OFFICIAL[2]].patient == found[OFFICIAL[3]].patient == "person12"
    assert found[OFFICIAL[5]].patient == "person1180"


def test_the_same_normal_number_is_one_child(tmp_path):
    names = ["NORMAL/IM-0115-0001.jpeg", "NORMAL/NORMAL2-IM-0115-0001.jpeg"]
    found = scan(touch(tmp_path, [*names, "PNEUMONIA/person1_bacteria_1.jpeg", "PNEUMONIA/person2_virus_1.jpeg"]))
    assert len({item.patient for item in found if item.label == "normal"}) == 1


def test_later_versions_name_class_patient_and_image(tmp_path):
    names = ["BACTERIA-1083680-0012.jpeg", "NORMAL-28501-0001.jpeg", "VIRUS-99-0001.jpeg", "VIRUS-99-0002.jpeg"]
    found = scan(touch(tmp_path, [f"train/x/{name}" for name in names]))
    assert [item.label for item in found] == ["bacteria", "normal", "virus", "virus"]
    assert found[2].patient == found[3].patient
    assert found[0].patient != found[1].patient


def test_the_kaggle_copy_counts_once(tmp_path):
    extra = [f"chest_xray/{p}" for p in OFFICIAL] + [f"chest_xray/chest_xray/{p}" for p in OFFICIAL]
    extra += ["chest_xray/val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "chest_xray/__MACOSX/train/NORMAL/._IM-0115-0001.jpeg"]
    found = scan(touch(tmp_path, [*extra, "chest_xray/.DS_Store", "chest_xray/train/NORMAL/.DS_Store"]))
    assert len(found) == len(OFFICIAL) + 1
    assert not any("chest_xray/chest_xray" in item.path for item in found)
    # Kaggle cut its `val` out of the training part; their children are in `train` as well.
    assert next(item for item in found if "1427" in item.path).part == "train"


def test_two_classes_need_no_kind(tmp_path):
    root = touch(tmp_path, ["NORMAL/a.png", "PNEUMONIA/b.png"])
    assert [item.label for item in scan(root, 2)] == ["normal", "pneumonia"]
    with pytest.raises(CxrError, match=r"neither folder nor name tells bacteria from virus.*data\.classes=2"):
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
def test_folders_that_are_no_data_set(tmp_path, paths, words):
    with pytest.raises(CxrError, match=words):
        scan(touch(tmp_path, paths))


def test_no_such_folder(tmp_path):
    with pytest.raises(CxrError, match="is no folder; give a folder"):
        scan(tmp_path / "none")


def test_the_real_set(real_data):
    found = scan(real_data)
    assert len(found) == 5216
    assert len({(item.part, item.patient) for item in found}) == 2635
