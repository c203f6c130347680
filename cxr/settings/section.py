"""What all sections of `params.yaml` have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Unit = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A mapping of settings with strict types and no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
