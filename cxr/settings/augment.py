"""The schema of augmentation and of the stages in which it grows."""

from typing import Annotated

from pydantic import Field, model_validator

from cxr.settings.section import Section, Unit


class AugmentSettings(Section):
    """Section `augment`: random changes of training images."""

    flip: bool
    crop_scale: list[Annotated[float, Field(ge=0.05, le=1)]] = Field(min_length=2, max_length=2)
    aspect: float = Field(ge=0, le=1)
    rotate: float = Field(ge=0, le=180)
    shear: float = Field(ge=0, le=45)
    translate: float = Field(ge=0, le=0.5)
    brightness: float = Field(ge=0, le=1)
    contrast: float = Field(ge=0, lt=1)
    gamma: float = Field(ge=0, le=2)
    clean: Unit
    blur: float = Field(ge=0, le=10)
    noise: float = Field(ge=0, le=0.5)
    jpeg: int = Field(ge=1, le=100)
    erase: float = Field(ge=0, le=0.5)
    border: float = Field(ge=0, le=0.3)
    corners: float = Field(ge=0, le=0.4)
    frame: float = Field(ge=0, le=0.3)
    blank: float = Field(ge=0, le=0.5)
    mixup: float = Field(ge=0, le=10)
    cutmix: float = Field(ge=0, le=10)

    @model_validator(mode="after")
    def _check_order(self):
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale {self.crop_scale}: expected the smaller share first")
        return self

    @property
    def off(self) -> bool:
        """Whether training sees the images exactly as evaluation does."""
        return not self.flip and self.crop_scale[0] == 1.0 and self.jpeg == 100 and not any(self._strengths().values())

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with one another, or blanked."""
        return self.pairs or bool(self.blank)

    @property
    def pairs(self) -> bool:
        """Whether images are mixed with one another."""
        return bool(self.frame) or self.blends

    @property
    def blends(self) -> bool:
        """Whether images are mixed with their labels."""
        return bool(self.mixup or self.cutmix)

    @property
    def softens(self) -> bool:
        """Whether labels become probabilities."""
        return bool(self.blank) or self.blends

    def scaled(self, strength: float) -> "AugmentSettings":
        """The same changes at a share of their strength; flips stay."""
        crop = [1 - strength * (1 - area) for area in self.crop_scale]
        jpeg = round(100 - strength * (100 - self.jpeg))
        weaker = {name: strength * value for name, value in self._strengths().items()}
        return self.model_copy(update=weaker | {"crop_scale": crop, "jpeg": jpeg})

    def _strengths(self) -> dict[str, float]:
        apart = {"flip", "crop_scale", "jpeg", "clean"}
        return {name: value for name, value in self.model_dump().items() if name not in apart}


class StageSettings(Section):
    """A stage of progressive learning (Tan and Le, "EfficientNetV2", 2021, section 4)."""

    share: float = Field(gt=0, le=1)
    size: Annotated[int, Field(ge=32, le=2048)]
    strength: Unit
