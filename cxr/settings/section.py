"""What all sections of `params.yaml` have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Unit = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A mapping of settings with strict types and no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ScoreLimits(Section):
    """A limit for each of the scores that can have one; None: no limit."""

    accuracy: Unit | None
    balanced_accuracy: Unit | None
    macro_f1: Unit | None
    auc_finding: Unit | None
    sensitivity: Unit | None
    specificity: Unit | None
