"""Types of settings that name a place: a path on this machine, or a URL as well (see `cxr.common.storage`).

What cannot be used raises `CxrError` instead of a validation error, which would repeat a secret in a URL.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from cxr.common import storage
from cxr.common.remote import Remote


def local(setting: str) -> AfterValidator:
    """The check that the value of a setting is on this machine; a `file:` URL becomes its path."""

    def check(text: str) -> str:
        found = storage.local(text, setting)
        return str(found) if text.lower().startswith("file:") else text

    return AfterValidator(check)


def _check_data_path(text: str) -> str:
    if not storage.is_download(text):
        storage.given(text, "data_path")
    return text


DataPath = Annotated[str, Field(min_length=1), AfterValidator(_check_data_path)]


def is_remote(path: str) -> bool:
    """Whether `data.path` is a URL of remote storage."""
    return not storage.is_download(path) and isinstance(storage.given(path, "data_path"), Remote)
