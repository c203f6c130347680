"""The schema of section `search`: what is searched, within which bounds, and for how long.

Whether the bounds are values of the settings that they name is checked by `cxr.search.space`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, field_validator

from cxr.settings.labels import Text
from cxr.settings.section import Positive, Section

SECTIONS = ("model", "train", "finetune")  # what a trial may change: all trials share the split
JUDGES = ("metric", "select", "select_images", "min_delta")  # settings of a training that say what is better
Scalar = None | bool | int | float | str


class Range(Section):
    """Numbers from `low` to `high`: whole ones if both are. With `log`, every order of magnitude is as likely."""

    low: int | float
    high: int | float
    log: bool = False


class Choices(Section):
    """Some values, each as likely as the others."""

    choices: list[Any]


def _domain(value: Any) -> Range | Choices:
    if isinstance(value, dict) and value.keys() == {"choices"}:
        return _choices(value["choices"])
    if not isinstance(value, dict) or not {"low", "high"} <= value.keys() <= {"low", "high", "log"}:
        raise ValueError("expected {low: NUMBER, high: NUMBER}, log: true beside them or not, or {choices: [VALUE, …]}")
    low, high, log = value["low"], value["high"], value.get("log", False)
    if not _is_number(low) or not _is_number(high) or not isinstance(log, bool):
        raise ValueError(f"expected numbers as low and high, and log: true or false, got {low!r}, {high!r} and {log!r}")
    if not low < high:
        raise ValueError(f"low {low:g} is not below high {high:g}")
    if log and low <= 0:
        raise ValueError(f"low {low:g}: log: true needs a number above 0")
    return Range(low=low, high=high, log=log)


def _choices(values: Any) -> Choices:
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(value, Scalar) for value in values):
        raise ValueError("expected two choices or more: numbers, texts, true, false or null")
    if len(set(map(repr, values))) < len(values):
        raise ValueError("the same choice is given twice")
    return Choices(choices=values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class SearchSettings(Section):
    """Section `search`: hyperparameters by trial and error, judged on validation."""

    study: str = Field(pattern=r"^[\w .-]+$")
    trials: Annotated[int, Field(ge=1, le=1000)]
    hours: Annotated[float, Field(gt=0)] | None
    engine: Literal["local", "spark"]
    workers: Annotated[int, Field(ge=1, le=64)]
    startup_trials: Positive
    prune_after: Positive | None
    space: dict[Text, Annotated[Any, PlainValidator(_domain)]]

    @field_validator("space")
    @classmethod
    def _check_names(cls, space: dict[str, Range | Choices]) -> dict[str, Range | Choices]:
        if not space:
            raise ValueError("expected settings to search, as {finetune.optimizer.lr: {low: 1e-5, high: 1e-3}}")
        for name in space:
            section, _, rest = name.partition(".")
            if section not in SECTIONS:
                raise ValueError(f"{name} cannot be searched; expected settings of {', '.join(SECTIONS)}")
            if rest.split(".", maxsplit=1)[0] in JUDGES:
                raise ValueError(f"{name} says which trial is better; it must be the same in all of them")
        return space
