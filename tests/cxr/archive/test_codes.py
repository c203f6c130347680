"""Codes of others are those that their tables have; our own stand for nothing else."""

import pytest
from pydicom.sr._concepts_dict import concepts

from cxr.archive import codes

CODES = {name: code for name, code in vars(codes).items() if isinstance(code, codes.CodedConcept)}
CODES |= {f"class {name}": code for name, code in codes._CLASSES.items()}
# Not in the tables of DICOM: compared by hand with a table of SNOMED CT (see `cxr.archive.codes`).
BY_HAND = {
    "CHEST_XRAY": ("399208008", "Plain chest X-ray"),
    "class pneumonia": ("233604007", "Pneumonia"),
    "class bacteria": ("53084003", "Bacterial pneumonia"),
    "class virus": ("75570004", "Viral pneumonia"),
}


def meanings(scheme: str, value: str) -> set[str]:
    """The meanings of a code in the tables of DICOM (PS3.16), which pydicom carries."""
    return {found[value][0].lower() for found in concepts[scheme].values() if value in found}


@pytest.mark.parametrize("name", CODES)
def test_codes_of_others_mean_what_their_tables_say(name):
    code = CODES[name]
    if code.scheme_designator == codes.SCHEME:
        assert not any(code.value in found for table in concepts.values() for found in table.values())
    elif name in BY_HAND:
        assert (code.value, code.meaning) == BY_HAND[name] and not meanings("SCT", code.value)
    else:
        assert code.meaning.lower() in meanings(code.scheme_designator, code.value)
