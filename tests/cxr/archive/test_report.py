"""A report says what the answer says, in codes that others know, and is valid DICOM."""

import io

import pydicom
import pytest
from highdicom.sr import Comprehensive3DSR
from pydicom.sr.coding import Code

from cxr.archive.identity import RESEARCH, Model, ResultUIDs
from cxr.archive.report import describe, report
from cxr.archive.source import Source
from tests.cxr.archive.made import MODEL, STUDY, answer, radiograph, referral, validated

PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
FINDING = Code("121071", "DCM", "Finding")


def written(row, data=None, model=MODEL) -> bytes:
    """The bytes of the report of a row."""
    source = Source.of(radiograph() if data is None else data)
    uids = ResultUIDs.of(source.study, source.instance, model, row["operating_point"])
    buffer = io.BytesIO()
    report(source, row, model, uids).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def read(data: bytes) -> Comprehensive3DSR:
    return Comprehensive3DSR.from_dataset(pydicom.dcmread(io.BytesIO(data)))


def group_of(document):
    (group,) = document.content.get_image_measurement_groups()
    return group


def texts(document, code: str) -> list[str]:
    """Texts of all items with this code, anywhere in the content."""
    found = []

    def walk(items):
        for item in items:
            if item.ValueType == "TEXT" and item.ConceptNameCodeSequence[0].CodeValue == code:
                found.append(item.TextValue)
            walk(item.get("ContentSequence", []))

    walk(document.ContentSequence)
    return found


def test_an_answer_can_be_read_back():
    document = read(written(answer()))
    group = group_of(document)
    evaluations = {item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()}
    assert evaluations == {
        "Pneumonia": "Present",
        "Most likely class": "Viral pneumonia",
        "Status of the answer": "Answered",
    }
    assert group.get_qualitative_evaluations(PNEUMONIA)[0].value == Code("52101004", "SCT", "Present")
    values = {item.name.meaning: (item.value, item.unit.value) for item in group.get_measurements()}
    assert values == {
        "Probability of pneumonia": (98.77, "%"),
        "Probability of normal": (1.23, "%"),
        "Probability of bacteria": (12.0, "%"),
        "Probability of virus": (86.77, "%"),
    }
    # Who does not know our codes finds the finding in one that everybody knows.
    modifiers = [item[0].ContentSequence[0] for item in group.get_measurements()]
    assert {item.name for item in modifiers} == {FINDING} and modifiers[0].value == PNEUMONIA
    assert texts(document, "111081") == [
        "argmax: pneumonia from a probability of 50 %, referred to a person from 40 to 60 %"
    ]
    (image,) = group.source_images
    assert image.referenced_sop_instance_uid == Source.of(radiograph()).instance


def test_it_says_who_answered_and_that_it_is_for_research():
    document = read(written(answer()))
    (context,) = document.content.get_observer_contexts()
    device = context.observer_identifying_attributes
    assert device.model_name == "cxr-pneumonia" and device.name == "cxr-pneumonia version 3"
    assert device.uid == MODEL.device_uid
    assert texts(document, "111001") == ["cxr-pneumonia"] and texts(document, "111003") == ["3"]
    assert (document.ManufacturerModelName, document.SoftwareVersions) == ("cxr-pneumonia", "3")
    assert texts(document, "121106") == [RESEARCH]
    assert RESEARCH in document.SeriesDescription and document.ContentQualification == "RESEARCH"
    assert (document.VerificationFlag, document.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert document.Modality == "SR" and document.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_a_negative_answer_says_absent():
    group = group_of(read(written(answer(decision="normal", label="normal"))))
    assert group.get_qualitative_evaluations(PNEUMONIA)[0].value.meaning == "Absent"


def test_a_referral_has_reasons_and_no_numbers():
    document = read(written(referral()))
    group = group_of(document)
    evaluations = {item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()}
    assert evaluations == {"Pneumonia": "Undetermined", "Status of the answer": "Referred to a person"}
    assert texts(document, "REASON") == ["blank", "undecided (probability of pneumonia 0.5, between 0.4 and 0.6)"]
    assert not group.get_measurements()


def test_viewers_print_the_name_beside_each_value():
    document = read(written(answer()))
    measurements = document.ContentSequence[-1]
    assert {document.ContinuityOfContent, measurements.ContinuityOfContent} == {"SEPARATE"}
    assert measurements.ContentSequence[0].ContinuityOfContent == "SEPARATE"


def test_it_belongs_to_the_patient_and_study_of_the_image_in_a_series_of_its_own():
    source, document = pydicom.dcmread(io.BytesIO(radiograph())), read(written(answer()))
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        assert document[name].value == source[name].value, name
    for name in ("StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "SpecificCharacterSet"):
        assert document[name].value == source[name].value, name
    assert document.SeriesInstanceUID != source.SeriesInstanceUID
    assert document.get_evidence() == [(STUDY, source.SeriesInstanceUID, source.SOPInstanceUID, source.SOPClassUID)]


@pytest.mark.parametrize("row", [answer(), answer(operating_point="sensitive"), referral(), referral("a" * 3000)])
def test_it_is_valid(row, tmp_path):
    assert validated(written(row), tmp_path) == []


def test_own_classes_get_codes_of_our_own(tmp_path):
    names = ("gesund", "Lungenentzündung\\bakteriell, mit einem sehr langen Namen, der nirgends in ein Feld passt")
    model = Model("m" * 90, "3", "5f" * 32, names, names[1], {"argmax": 0.5}, {"argmax": (0.4, 0.6)}, "crop")
    row = {"label": names[1], f"probability_{names[0]}": 0.1, f"probability_{names[1]}": 0.9, "decision": names[1]}
    data = written(answer() | row, model=model)
    meanings = [item.name.meaning for item in group_of(read(data)).get_measurements()]
    assert meanings[0].startswith("Probability of Lungenentzundung/bakteriell")
    assert meanings[1] == "Probability of gesund"
    assert validated(data, tmp_path) == []


def test_the_operating_point_in_words():
    assert describe("sensitive", MODEL) == (
        "sensitive: pneumonia from a probability of 20 %, referred to a person from 14 to 27 %"
    )
