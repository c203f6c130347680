"""Header of the image that results belong to: patient, study and references, without what DICOM does not allow.

Headers in the wild hold dates that are none, sexes that DICOM does not know and character sets that nobody has. What
identifies patient and study is copied as it is written, but for dates of before DICOM 3.0, which are written as today;
a value that no archive could take becomes empty.
"""

import io
import logging
import re
import warnings
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian
from pydicom.valuerep import PersonName

from cxr.archive.identity import MAKER
from cxr.errors import ImageError

# Both libraries log and warn with the values that they complain about, which are names of patients.
for _name in ("pydicom", "highdicom"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=rf"{_name}\.")

PATIENT = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
)
STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "StudyDescription")
# Elements of patient and study that every object must have, empty if nobody knows them (type 2).
REQUIRED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", *STUDY[:5])
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_IMAGE = (
    *_UIDS,
    "SpecificCharacterSet",
    "Modality",
    "Manufacturer",
    "Rows",
    "Columns",
    "InstanceNumber",
    "PatientOrientation",
    "BurnedInAnnotation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
# Leading zeros and missing roots are against the rule, but results must name a study as its archive does.
_UID = re.compile(r"[0-9.]{1,64}")
_FORMS = {
    "DA": re.compile(r"(\d{8}|\d{4}\.\d\d\.\d\d)?"),  # with points before DICOM 3.0
    "TM": re.compile(r"(([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?)?"),
    "CS": re.compile(r"[A-Z0-9 _]{0,16}"),
}
_VALUES = {"PatientSex": ("M", "F", "O"), "PatientIdentityRemoved": ("YES", "NO"), "BurnedInAnnotation": ("YES", "NO")}
_UTF8 = "ISO_IR 192"
_META_BYTES = 4096  # that are searched for the transfer syntax
_UNKNOWN_MODALITY = "OT"


class HeaderError(ImageError):
    """A header to which no result can refer; the message holds nothing of the patient."""


@dataclass(frozen=True)
class Source:
    """The image that results refer to.

    Attributes:
        study, series, instance, sop_class: its identifiers.
        modality: DX, CR, ...
        rows, columns: its size, pixels.
        number: of the instance in its series; 1 if unknown.
        identity: elements of patient and study, to be copied.
        charset: character set of the texts in `identity`; empty for the default one.
        orientation: patient directions of rows and columns, such as ("L", "F"); empty if unknown.
        image: further elements of the image that hold for one made from it.
    """

    study: str
    series: str
    instance: str
    sop_class: str
    modality: str
    rows: int
    columns: int
    number: int
    identity: Dataset = field(repr=False)
    charset: str | list[str]
    orientation: tuple[str, ...]
    image: Dataset = field(repr=False)

    @classmethod
    def of(cls, data: bytes) -> "Source":
        """The header of a DICOM file.

        Raises:
            HeaderError: results cannot refer to it: it lacks study, series or instance, is of an unknown class, or is
                a result of this project.
        """
        header = _header(data)
        uids = {name: _uid(header, name) for name in _UIDS}
        if UID(uids["SOPClassUID"]).type != "SOP Class":  # of which nothing is known, not even whether it is an image
            raise HeaderError("its SOP class is none of DICOM's")
        if str(_value(header, "Manufacturer")) == MAKER:
            raise HeaderError("a result of this project")
        identity, image = Dataset(), Dataset()
        for name in (*PATIENT, *STUDY):
            value = _value(header, name)
            if value != "" or name in REQUIRED:
                setattr(identity, name, value)
        for name in ("BurnedInAnnotation", *(name for name in _IMAGE if name.startswith("Lossy"))):
            if (value := _value(header, name)) != "":
                setattr(image, name, value)
        orientation = _value(header, "PatientOrientation")
        return cls(
            study=uids["StudyInstanceUID"],
            series=uids["SeriesInstanceUID"],
            instance=uids["SOPInstanceUID"],
            sop_class=uids["SOPClassUID"],
            modality=str(_value(header, "Modality")) or _UNKNOWN_MODALITY,
            rows=int(header.Rows),
            columns=int(header.Columns),
            number=_number(header),
            identity=identity,
            charset=_charset(header),
            orientation=tuple(map(str, orientation)) if isinstance(orientation, MultiValue) else (),
            image=image,
        )


def identifiers(data: bytes) -> tuple[str, str, str]:
    """Study, series and instance of a DICOM file; raises `HeaderError` if it lacks one of them."""
    header = _header(data)
    study, series, instance = (_uid(header, name) for name in _UIDS[:3])
    return study, series, instance


def is_uid(text: object) -> bool:
    """Whether a text can be an identifier, and so a part of an address or of a path."""
    return isinstance(text, str) and bool(_UID.fullmatch(text)) and text.strip(".") != ""


def _header(data: bytes) -> Dataset:
    if DeflatedExplicitVRLittleEndian.encode() in data[:_META_BYTES]:  # of unknown size until it is decompressed
        raise HeaderError("a deflated DICOM file")
    names = [tag_for_keyword(name) for name in (*PATIENT, *STUDY, *_IMAGE)]
    try:
        return dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=names)  # type: ignore[arg-type]
    except Exception as error:  # a parser of so wide a format raises many types on damaged files
        raise HeaderError(f"its header cannot be read ({type(error).__name__})") from None


def _uid(header: Dataset, name: str) -> str:
    value = _value(header, name)
    if not value:
        raise HeaderError(f"no {name}")
    if not is_uid(value):
        raise HeaderError(f"{name} is not a UID")
    return str(value)


def _value(header: Dataset, name: str) -> Any:
    """The value of an element; empty if it is missing, or if it is none that DICOM allows."""
    try:
        value = header[name].value if name in header else ""
    except Exception:  # values are parsed when they are first read
        return ""
    if value is None or not isinstance(value, str | PersonName | MultiValue | int | float):
        return ""
    form, allowed = _FORMS.get(dictionary_VR(name)), _VALUES.get(name)
    parts = [str(part) for part in value] if isinstance(value, MultiValue) else [str(value)]
    if form and not all(form.fullmatch(part) for part in parts):
        return ""
    if dictionary_VR(name) == "DA":
        return _date(parts[0]) if len(parts) == 1 else ""
    return "" if allowed and str(value) not in allowed else value


def _date(text: str) -> str:
    """A date as DICOM has it today; empty if there is no such day."""
    digits = text.replace(".", "")
    try:
        datetime.strptime(digits, "%Y%m%d")
    except ValueError:
        return ""
    return digits


def _number(header: Dataset) -> int:
    try:
        number = int(_value(header, "InstanceNumber"))
    except (ValueError, TypeError):
        return 1
    return number if 1 <= number < 2**31 else 1


def _charset(header: Dataset) -> str | list[str]:
    """The character set in which texts are written: that of the file, or UTF-8 if nobody knows that."""
    value = header.get("SpecificCharacterSet") or ""
    names = [str(name) for name in value] if isinstance(value, MultiValue | list) else [str(value)]
    if any(name not in python_encoding for name in names):
        return _UTF8
    return names if len(names) > 1 else names[0]
