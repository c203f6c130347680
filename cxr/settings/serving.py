"""Schema of the section `serving`. Units and reasons are in the comments of `params.yaml`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cxr.settings.section import Positive, Section

RULES = ("refer_share", "risk")  # of which one chooses the band


class ServingSettings(Section):
    """Section `serving`: decisions, referrals and limits of a served model."""

    engine: Literal["onnxruntime", "openvino", "auto"]
    operating_point: Literal["argmax", "youden", "sensitive"]
    refer_share: Annotated[float, Field(ge=0, lt=1)] | None
    risk: Annotated[float, Field(ge=0, lt=1)] | None
    ood_share: float = Field(gt=0, lt=0.5)
    ood_images: int = Field(ge=10)
    max_bytes: int = Field(ge=1000)
    max_pixels: int = Field(ge=10_000, le=178_956_970)  # Pillow refuses larger images itself
    max_images: Positive
    max_request_bytes: int = Field(ge=1000)

    @model_validator(mode="after")
    def _check_rule(self):
        if (self.refer_share is None) == (self.risk is None):
            given = f"refer_share {self.refer_share}, risk {self.risk}"
            raise ValueError(f"{given}: the band is chosen by one of them; give one, and null for the other")
        return self

    @property
    def rule(self) -> tuple[Literal["refer_share", "risk"], float]:
        """The setting that chooses the band, and its value."""
        if self.refer_share is not None:
            return "refer_share", self.refer_share
        return "risk", self.risk or 0.0  # never None, see above
