"""What becomes of the answers if images or weights are changed, as types: robustness, shortcuts, sanity of the maps.

They are parts of `report.json` (see `cxr.evaluation.results`).
"""

from typing import Literal

from pydantic import Field

from cxr.evaluation.facts import ReportModel
from cxr.evaluation.statistics import Estimate, Scores


class RobustnessRow(ReportModel):
    """Scores under one change of the images."""

    change: str = Field(description="What was done to the images.")
    changed: float = Field(description="Share of images whose predicted class changed.")
    scores: Scores


class ShortcutTest(ReportModel):
    """Scores on images from which the lungs, or all but the lungs, were taken."""

    images: str = Field(description="What is left of the images.")
    expected: Literal["near chance", "near unchanged"] = Field(
        description="What the scores should be, of a model that answers by the lungs."
    )
    scores: Scores
    differences: Scores = Field(description="Scores minus those of the unchanged images, paired interval.")
    as_expected: bool | None = Field(description="Whether they are; null if there is only one class.")
    words: str = Field(description="What was seen, one line.")


class Robustness(ReportModel):
    """Scores under small changes of the test images."""

    images: int = Field(description="Number of test images used.")
    table: list[RobustnessRow] = Field(description="One row for each change; the first one changes nothing.")
    shortcuts: list[ShortcutTest] = Field(description="Whether the answers come from the lungs.")
    inside: float | None = Field(
        description="Mean share of the activation for the predicted class that lies in the central region of the "
        "unchanged images; null without exact activation maps."
    )


class MapSimilarity(ReportModel):
    """How much the maps of a network with some random weights are those of the trained network."""

    randomised: str = Field(description="Which weights are random.")
    similarity: Estimate = Field(
        description="Mean rank correlation of the maps: 1 is the same map, 0 an unrelated one."
    )


class MapSanity(ReportModel):
    """Whether class activation maps depend on what the network has learnt (J. Adebayo et al., 2018)."""

    images: int = Field(description="Number of test images used.")
    cascade: list[MapSimilarity] = Field(description="From random weights of the head alone to random weights.")
    depends: bool = Field(description="Whether the maps change with the weights.")
