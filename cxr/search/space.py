"""The space of a search: its bounds held against the schema of the settings, and its values as text."""

from typing import Any

from cxr.errors import CxrError
from cxr.settings import load
from cxr.settings.schema import Settings
from cxr.settings.search import Choices, Range


def check(settings: Settings) -> Settings:
    """Raise `CxrError` unless all bounds and choices are values of the settings that they are for.

    Each of them is checked with all other settings as they are. Returns the settings with one value of each domain, to
    check the classes that they name.
    """
    sample = settings
    for name, domain in settings.search.space.items():
        for value in reversed(ends(domain)):
            try:
                load.resolve(settings.to_dict(), overrides({name: value}))
                sample = load.resolve(sample.to_dict(), overrides({name: value}))
            except CxrError as error:
                raise CxrError(f"search.space: {error}") from None
    return sample


def ends(domain: Range | Choices) -> list[Any]:
    """The bounds of a range, or all choices."""
    return domain.choices if isinstance(domain, Choices) else [domain.low, domain.high]


def overrides(values: dict[str, Any]) -> dict[str, str]:
    """Values of settings as texts that `cxr.settings.load.resolve` reads as the same values."""
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
