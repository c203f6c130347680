"""Every recipe reads a table of its dataset's published form: columns, labels, patients, splits and ages."""

import csv
import io

import pytest

from cxr.datasets.labelled import read
from cxr.settings import load
from tests.helpers import settings_with

CLASSES = ("normal", "pneumonia")
NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
    "00000001_000.png,No Finding,000,00000001,058Y,M,PA,2682,2749,0.143,0.143,\n"
    "00000001_001.png,Pneumonia|Effusion,001,00000001,058Y,M,PA,2894,2729,0.143,0.143,\n"
    "00000002_000.png,Effusion,000,00000002,411Y,F,AP,2500,2048,0.168,0.168,\n"
    "00000003_000.png,Pneumonia,000,00000003,004Y,F,AP,2500,2048,0.168,0.168,\n"
)
CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
    "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n"
    "CheXpert-v1.0-small/train/patient00002/study2/view1_frontal.jpg,Male,87,Frontal,PA,,,-1.0,1.0,,,,1.0,,,-1.0,,,\n"
    "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg,Male,83,Frontal,AP,,,,1.0,,,,-1.0,,,,,1.0,\n"
    "CheXpert-v1.0-small/train/patient00002/study1/view2_lateral.jpg,Male,83,Lateral,,,,,1.0,,,,1.0,,,,,1.0,\n"
)
RSNA_CLASSES = "patientId,class\np0,Normal\np1,Lung Opacity\np1,Lung Opacity\np2,No Lung Opacity / Not Normal\n"
RSNA_BOXES = (
    "patientId,x,y,width,height,Target\np0,,,,,0\np1,264.0,152.0,213.0,379.0,1\n"
    "p1,562.0,152.0,256.0,453.0,1\np2,,,,,0\n"
)
PCXR = (
    "image_id,rad_ID,No finding,Bronchitis,Brocho-pneumonia,Other disease,Bronchiolitis,Situs inversus,Pneumonia,"
    "Pleuro-pneumonia,Diagphramatic hernia,Tuberculosis,Congenital emphysema,CPAM,Hyaline membrane disease,"
    "Mediastinal tumor,Lung tumor\n"
)
PCXR_TRAIN = PCXR + "a,R1,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0\nb,R1,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0\n"
PCXR_TEST = PCXR + "c,R1,0,0,1,0,0,0,1,0,0,0,0,0,0,0,0\nd,R1,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0\n"
COVID = (
    "patientid,offset,sex,age,finding,RT_PCR_positive,survival,intubated,intubation_present,went_icu,in_icu,"
    "needed_supplemental_O2,extubated,temperature,pO2_saturation,leukocyte_count,neutrophil_count,lymphocyte_count,"
    "view,modality,date,location,folder,filename,doi,url,license,clinical_notes,other_notes\n"
)
COVID_ROWS = [
    ["2", "M", "65", "Pneumonia/Viral/COVID-19", "PA", "X-ray", "Hanoi, Vietnam", "images", "a.jpg"],
    ["2", "M", "65", "Pneumonia/Viral/COVID-19", "L", "X-ray", "Hanoi, Vietnam", "images", "b.jpg"],
    ["3", "F", "", "Pneumonia/Viral/Herpes ", "AP Supine", "X-ray", "", "images", "c.jpg"],
    ["4", "", "40", "No Finding", "AP", "X-ray", "", "images", "d.png"],
    ["5", "M", "40", "Tuberculosis", "PA", "X-ray", "", "images", "e.png"],
    ["6", "M", "40", "Pneumonia/Viral/COVID-19", "Axial", "CT", "", "volumes", "f.nii.gz"],
]


def covid_table():
    names = ["patientid", "sex", "age", "finding", "view", "modality", "location", "folder", "filename"]
    header = COVID.strip().split(",")
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="")
    writer.writeheader()
    writer.writerows(dict(zip(names, row, strict=True)) for row in COVID_ROWS)
    return text.getvalue()


def listed(root, recipe, tables, files, **overrides):
    for name, text in tables.items():
        (root / name).write_text(text)
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    data = settings_with({"data.recipe": recipe, "data.path": root, **overrides}, "cpu").data
    return read(root, data, CLASSES)


def test_nih_chestxray14(tmp_path):
    names = ["00000001_000.png", "00000001_001.png", "00000002_000.png", "00000003_000.png"]
    files = [f"images_00{number % 2 + 1}/images/{name}" for number, name in enumerate(names)]
    found = listed(tmp_path, "nih_chestxray14", {"Data_Entry_2017.csv": NIH}, files)
    images = {image.path.rsplit("/", 1)[1]: image for image in found.images}
    assert [images[name].label for name in (names[0], names[1], names[3])] == ["normal", "pneumonia", "pneumonia"]
    assert images[names[0]].patient == images[names[1]].patient != images[names[3]].patient
    assert images[names[0]].extras == {"age": 58.0, "sex": "male", "view": "PA"}
    assert found.description["left_out"] == {"no label": 1}


def test_children_can_be_picked_from_chestxray14(tmp_path):
    text = NIH + "00000004_000.png,No Finding,000,00000004,003Y,F,AP,2500,2048,0.168,0.168,\n"
    files = [f"{number:08}_000.png" for number in range(1, 5)]
    overrides = {"data.filters": "{age: {min: 1, max: 5}}"}
    found = listed(tmp_path, "nih_chestxray14", {"Data_Entry_2017.csv": text}, files, **overrides)
    assert [(image.path, image.label) for image in found.images] == [(files[2], "pneumonia"), (files[3], "normal")]


@pytest.mark.parametrize("above", ["", "CheXpert-v1.0-small/"])
def test_chexpert(tmp_path, above):
    rows = [line.split(",")[0] for line in CHEXPERT.splitlines()[1:]]
    files = [above + path.removeprefix("CheXpert-v1.0-small/") for path in rows]
    found = listed(tmp_path, "chexpert", {"train.csv": CHEXPERT}, files)
    assert [(image.path, image.label) for image in found.images] == [(files[0], "normal"), (files[1], "pneumonia")]
    assert found.images[0].extras == {"age": 68.0, "sex": "female", "view": "AP"}
    # The last image is lateral, and the third one is uncertain.
    assert found.description["left_out"] == {"filter Frontal/Lateral": 1, "no label": 1}


def test_the_patients_of_chexpert_are_in_its_paths(tmp_path):
    text = CHEXPERT.replace("-1.0,,,,,1.0,", "1.0,,,,,1.0,")  # the uncertain one
    files = [line.split(",")[0] for line in text.splitlines()[1:]]
    images = {image.path: image for image in listed(tmp_path, "chexpert", {"train.csv": text}, files).images}
    assert images[files[1]].patient == images[files[2]].patient != images[files[0]].patient


def test_rsna_pneumonia_2018(tmp_path):
    tables = {"stage_2_detailed_class_info.csv": RSNA_CLASSES, "stage_2_train_labels.csv": RSNA_BOXES}
    files = [f"stage_2_train_images/p{number}.dcm" for number in range(3)]
    found = listed(tmp_path, "rsna_pneumonia_2018", tables, files)
    assert [(image.path, image.label) for image in found.images] == [(files[0], "normal"), (files[1], "pneumonia")]
    assert found.description["left_out"] == {"no label": 1, "double rows": 1}
    boxes = {"data.labels": "stage_2_train_labels.csv", "data.columns.label": "Target"}
    found = listed(tmp_path, "rsna_pneumonia_2018", {}, [], **boxes, **{"data.mapping": "{0: normal, 1: pneumonia}"})
    assert [image.label for image in found.images] == ["normal", "pneumonia", "normal"]


def test_vindr_pcxr(tmp_path):
    tables = {"image_labels_train.csv": PCXR_TRAIN, "image_labels_test.csv": PCXR_TEST}
    files = ["train/a.dicom", "train/b.dicom", "test/c.dicom", "test/d.dicom"]
    found = listed(tmp_path, "vindr_pcxr", tables, files)
    assert [(image.path, image.label, image.official_split) for image in found.images] == [
        ("test/c.dicom", "pneumonia", "test"),
        ("test/d.dicom", "normal", "test"),
        ("train/a.dicom", "normal", "train"),
    ]
    assert found.description["left_out"] == {"no label": 1}  # bronchitis


def test_covid_chestxray_dataset(tmp_path):
    files = [f"images/{name}" for name in ("a.jpg", "b.jpg", "c.jpg", "d.png", "e.png")]
    found = listed(tmp_path, "covid_chestxray_dataset", {"metadata.csv": covid_table()}, files)
    images = {image.path: image for image in found.images}
    assert {path: image.label for path, image in images.items()} == {
        "images/a.jpg": "pneumonia",
        "images/c.jpg": "pneumonia",
        "images/d.png": "normal",
    }
    assert images["images/a.jpg"].extras == {"age": 65.0, "sex": "male", "view": "PA", "site": "Hanoi, Vietnam"}
    assert found.description["left_out"] == {"filter modality": 1, "filter view": 1, "no label": 1}


def test_every_recipe_is_tested_or_has_no_table():
    names = {path.stem for path in load.RECIPES.glob("*.yaml")}
    assert {name for name in names if f"test_{name}" not in globals()} == {"kermany"}
    assert settings_with({"data.recipe": "kermany"}, "cpu").data.path == "mendeley"
