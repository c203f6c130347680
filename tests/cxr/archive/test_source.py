"""Headers as they are in the wild: what can be copied is, what nobody could take is left out, and nothing is told."""

import io
import logging

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cxr.archive.capture import capture
from cxr.archive.identity import MAKER, ResultUIDs
from cxr.archive.report import report
from cxr.archive.source import HeaderError, Source, identifiers, is_uid
from tests.cxr.archive.made import MODEL, SERIES, STUDY, answer, picture, radiograph, validated


def results(data: bytes) -> list[bytes]:
    """The bytes of the heatmap and of the report for an image."""
    source = Source.of(data)
    uids = ResultUIDs.of(source.study, source.instance, MODEL, "argmax")
    files = []
    for made in (capture(source, answer(), MODEL, uids), report(source, answer(), MODEL, uids)):
        buffer = io.BytesIO()
        made.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


CHARSETS = {
    "latin 1": ("ISO_IR 100", "Müller^Jürgen"),
    "UTF-8": ("ISO_IR 192", "Nguyễn^Ánh=阮^英"),
    "Cyrillic": ("ISO_IR 144", "Люкceмбypг^Иван"),
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Japanese with half-width kana": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "Korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "Chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "none": (None, "Doe^Jane"),
}


@pytest.mark.parametrize("charset", CHARSETS)
def test_names_survive_in_every_character_set(charset, tmp_path):
    declared, name = CHARSETS[charset]
    data = radiograph(SpecificCharacterSet=declared, PatientName=name)
    for file in results(data):
        made, source = read(file), read(data)
        assert str(made.PatientName) == name
        assert made.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")
        # The same bytes, as an archive compares them.
        assert read(file).get_item("PatientName").value == read(data).get_item("PatientName").value
        assert validated(file, tmp_path) == []


def test_bytes_of_an_undeclared_character_set_stay_as_they_are():
    data = radiograph(SpecificCharacterSet=None, PatientName="M?ller").replace(b"M?ller", b"M\xfcller")
    for file in results(data):
        assert read(file).get_item("PatientName").value == b"M\xfcller"


def test_an_unknown_character_set_becomes_utf_8():
    data = radiograph(SpecificCharacterSet="ISO_IR 999", PatientName="Doe^Jane")
    for file in results(data):
        assert read(file).SpecificCharacterSet == "ISO_IR 192" and read(file).PatientName == "Doe^Jane"


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"PatientID": None}, {"PatientID": ""}),
        ({"PatientBirthDate": ""}, {"PatientBirthDate": ""}),
        ({"PatientBirthDate": "unknown"}, {"PatientBirthDate": ""}),
        ({"PatientBirthDate": "1970.02.28"}, {"PatientBirthDate": "19700228"}),
        ({"PatientBirthDate": "19700230", "StudyDate": "20261399"}, {"PatientBirthDate": "", "StudyDate": ""}),
        ({"PatientBirthDate": "00000000", "StudyTime": "246199"}, {"PatientBirthDate": "", "StudyTime": ""}),
        ({"PatientBirthDate": "20240229"}, {"PatientBirthDate": "20240229"}),
        ({"StudyTime": "235960.5"}, {"StudyTime": "235960.5"}),  # a leap second
        ({"PatientSex": "female"}, {"PatientSex": ""}),
        ({"PatientSex": None, "PatientName": None, "StudyDate": None}, {"PatientSex": "", "PatientName": ""}),
        ({"StudyTime": "10:15:00", "StudyDate": "28.11.26"}, {"StudyTime": "", "StudyDate": ""}),
        ({"PatientName": "Doe"}, {"PatientName": "Doe"}),
        ({"PatientID": "a\\b"}, {"PatientID": ["a", "b"]}),
        ({"InstanceNumber": None}, {"InstanceNumber": 1}),
        ({"InstanceNumber": -4}, {"InstanceNumber": 1}),
        ({"PatientOrientation": None}, {}),
        ({"PatientOrientation": ["links", "unten"]}, {}),
        ({"Modality": None}, {}),
        ({"IssuerOfPatientID": "here", "PatientIdentityRemoved": "YES"}, {"IssuerOfPatientID": "here"}),
    ],
)
def test_odd_and_missing_values(elements, expected):
    for file in results(radiograph(**elements)):
        made = read(file)
        for name, value in expected.items():
            assert (made[name].value if made[name].value is not None else "") == value


def test_what_an_archive_could_not_take_passes_validation(tmp_path):
    elements = {"PatientSex": "female", "PatientBirthDate": "unknown", "StudyTime": "10:15", "PatientOrientation": None}
    dates = {"PatientBirthDate": "1970.02.28", "StudyDate": "20261399", "StudyTime": "256199"}
    for file in (*results(radiograph(**elements)), *results(radiograph(**dates))):
        assert validated(file, tmp_path) == []


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"StudyInstanceUID": None}, "no StudyInstanceUID"),
        ({"StudyInstanceUID": ""}, "no StudyInstanceUID"),
        ({"SOPInstanceUID": None}, "no SOPInstanceUID"),
        ({"SeriesInstanceUID": "../../etc/passwd"}, "SeriesInstanceUID is not a UID"),
        ({"StudyInstanceUID": ".."}, "StudyInstanceUID is not a UID"),
        ({"StudyInstanceUID": "1." * 40}, "StudyInstanceUID is not a UID"),
        ({"SOPClassUID": None}, "no SOPClassUID"),
        ({"SOPClassUID": "1.2.3.4"}, "its SOP class is none of DICOM's"),
        ({"SOPClassUID": "1.2.840.10008.1.2.1"}, "its SOP class is none of DICOM's"),  # a transfer syntax
        ({"Manufacturer": MAKER}, "a result of this project"),
    ],
)
def test_images_that_no_result_can_refer_to(elements, words):
    with pytest.raises(HeaderError, match=words) as refusal:
        Source.of(radiograph(**elements))
    assert "0012" not in str(refusal.value) and "ller" not in str(refusal.value)


def test_odd_uids_are_written_as_the_archive_has_them():
    data = radiograph(study="1.02.003", SOPInstanceUID="1.2.0001")
    for file in results(data):
        assert read(file).StudyInstanceUID == "1.02.003"
    assert read(results(data)[0]).SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.0001"
    assert is_uid("1.2.3") and not is_uid("1/2") and not is_uid("") and not is_uid(None)


def test_no_pixel_is_read_and_every_syntax_will_do():
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        whole = read(radiograph())
        whole.file_meta.TransferSyntaxUID = syntax
        buffer = io.BytesIO()
        whole.save_as(buffer)
        assert Source.of(buffer.getvalue()[:-2000]).study == STUDY
    private = radiograph().replace(b"1.2.840.10008.1.2.1\0", b"1.2.999.1.2.3.4.5.6\0")
    assert Source.of(private).instance == f"{SERIES}.1"


@pytest.mark.parametrize("cut", [140, 300, 500])
def test_a_broken_header_is_told_in_one_line(cut):
    with pytest.raises(HeaderError):
        Source.of(radiograph()[:cut])
    with pytest.raises(HeaderError):
        identifiers(radiograph()[:cut])


def test_nothing_of_a_patient_is_logged_or_warned_of(caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    results(radiograph(PatientName="Secretname", PatientID="Secretname" * 20, StudyInstanceUID="1.02.3"))
    assert "Secretname" not in caplog.text
    assert not [warning for warning in recwarn if "Secretname" in str(warning.message)]


def test_what_is_burned_in_or_lost_in_the_image_is_so_in_its_heatmap(tmp_path):
    lossy = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": 12.5,
        "LossyImageCompressionMethod": "ISO_10918_1",
        "BurnedInAnnotation": "YES",
    }
    heatmap, told = results(radiograph(**lossy, pixels=picture()))
    made = read(heatmap)
    assert (made.LossyImageCompression, made.LossyImageCompressionRatio) == ("01", 12.5)
    assert made.BurnedInAnnotation == "YES"
    assert validated(heatmap, tmp_path) == [] and validated(told, tmp_path) == []
