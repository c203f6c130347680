"""Codes of a report: DICOM and SNOMED CT where they have the concept, our own scheme 99CXR where they have none."""

import re
import unicodedata

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept

from cxr.archive.identity import MAKER
from cxr.common.files import sha256_of_text

SCHEME = "99CXR"
# DICOM PS3.16, context groups 240 (present, absent, undetermined), 244, 6047 and TID 4104, as pydicom has them; SNOMED
# CT, international. CHEST_XRAY and the three pneumonias are not in DICOM: they were compared by hand with public tables
# of SNOMED CT.
PRESENT = CodedConcept("52101004", "SCT", "Present")
ABSENT = CodedConcept("272519000", "SCT", "Absent")
UNDETERMINED = CodedConcept("373068000", "SCT", "Undetermined")
CHEST = CodedConcept("816094009", "SCT", "Chest")
CHEST_XRAY = CodedConcept("399208008", "SCT", "Plain chest X-ray")
FINDING = CodedConcept("121071", "DCM", "Finding")
COMMENT = CodedConcept("121106", "DCM", "Comment")
DEVICE = CodedConcept("121007", "DCM", "Device")
OPERATING_POINT = CodedConcept("111081", "DCM", "CAD Operating Point Description")
SOURCE_IMAGE = CodedConcept("121322", "DCM", "Source image for image processing operation")
PERCENT = CodedConcept("%", "UCUM", "Percent")
STATUS = CodedConcept("STATUS", SCHEME, "Status of the answer")
ANSWERED = CodedConcept("ANSWERED", SCHEME, "Answered")
REFERRED = CodedConcept("REFERRED", SCHEME, "Referred to a person")
REASON = CodedConcept("REASON", SCHEME, "Reason for the referral")
LABEL = CodedConcept("LABEL", SCHEME, "Most likely class")
_CLASSES = {
    "pneumonia": CodedConcept("233604007", "SCT", "Pneumonia"),
    "bacteria": CodedConcept("53084003", "SCT", "Bacterial pneumonia"),
    "virus": CodedConcept("75570004", "SCT", "Viral pneumonia"),
    "normal": CodedConcept("17621005", "SCT", "Normal"),
}
_CODE_LENGTH, _MEANING_LENGTH = 16, 64  # of SH and LO
_DIGEST = 6  # letters


def of_class(name: str) -> CodedConcept:
    """The code of a class or a finding by its name in the settings."""
    return _CLASSES.get(name) or CodedConcept(_value(name), SCHEME, meaning(name))


def probability_of(name: str) -> CodedConcept:
    """The code for the calibrated probability of a class or a finding. No standard has one."""
    return CodedConcept(_value(f"P {name}"), SCHEME, meaning(f"Probability of {name}"))


def scheme() -> CodingSchemeIdentificationItem:
    """What an object that uses our own codes says about them."""
    return CodingSchemeIdentificationItem(
        SCHEME, name="Codes of cxr-pipeline, a chest X-ray classifier", responsible_organization=MAKER
    )


def meaning(text: str) -> str:
    """A text for any character set, as our own words stand beside the name of a patient: ASCII, at most 64 letters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(plain.replace("\\", "/").split())[:_MEANING_LENGTH] or "?"


def _value(text: str) -> str:
    """A code of at most 16 letters; where they do not tell the whole text, part of its digest keeps it distinct."""
    plain = re.sub(r"[^A-Z0-9_-]+", "-", text.replace(" ", "-").upper())
    if len(plain) <= _CODE_LENGTH and plain == text.replace(" ", "-").upper():
        return plain
    return f"{plain[: _CODE_LENGTH - _DIGEST - 1]}-{sha256_of_text(text)[:_DIGEST].upper()}"
