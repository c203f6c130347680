"""A search for images in an archive, as the user writes it: `{Modality: [DX, CR], StudyDate: 20261101-20261128}`."""

import difflib
import itertools

import yaml
from pydicom.datadict import DicomDictionary, tag_for_keyword

from cxr.errors import CxrError

DEFAULT = {"Modality": ["CR", "DX"]}
_MOST = 100  # searches that lists of values come to
_FORM = "expected pairs like {Modality: DX, StudyDate: 20261101-20261128}"


def read_query(text: str) -> dict[str, list[str]]:
    """The values to search for, by keyword of DICOM. Without `Modality`, it is CR or DX.

    Values stay texts, so that the patient ID 0012 is not the number 10.
    """
    try:
        given = yaml.load(text or "{}", Loader=yaml.BaseLoader)  # noqa: S506  # nosec B506  # texts, lists and mappings
    except yaml.YAMLError:
        raise CxrError(f"query: not valid YAML; {_FORM}") from None
    if not isinstance(given, dict):
        raise CxrError(f"query: {_FORM}")
    query: dict[str, list[str]] = {}
    for key, value in given.items():
        values = value if isinstance(value, list) else [value]
        if not isinstance(key, str) or tag_for_keyword(key) is None:
            known = [entry[4] for entry in DicomDictionary.values()]
            near = difflib.get_close_matches(str(key), known, n=1)
            raise CxrError(f"query: {key!r} is no keyword of DICOM" + (f"; did you mean {near[0]!r}?" if near else ""))
        if not values or not all(isinstance(one, str) and one for one in values):
            raise CxrError(f"query: {key} needs a value, or a list of values")
        query[key] = values
    query = DEFAULT | query
    if (searches := len(list(searches_of(query)))) > _MOST:
        raise CxrError(f"query: its lists come to {searches} searches; at most {_MOST} are allowed")
    return query


def searches_of(query: dict[str, list[str]]) -> list[dict[str, str]]:
    """The searches that a query comes to, each with one value for each keyword: servers need not take lists."""
    return [dict(zip(query, values, strict=True)) for values in itertools.product(*query.values())]
