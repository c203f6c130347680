"""Mix-up and CutMix: images blended, or pasted into one another, with their labels.

H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018; S. Yun et al., "CutMix", 2019.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor
from torch.nn import functional

from cxr.settings.schema import AugmentSettings


@dataclass(frozen=True)
class Partners:
    """With which image each of n images is mixed in an epoch.

    Attributes:
        index: the other image, `int64` of shape (n,).
        kept: share of the image that stays its own, 0.5..1, of shape (n,).
        box: for a paste, its place (left, top, right, bottom) as shares of the side; empty for a blend; (n, 4).
    """

    index: Tensor
    kept: Tensor
    box: Tensor

    def of(self, index: Tensor) -> "Partners":
        """Those of some images, by their numbers `int64` of shape (B,)."""
        return Partners(self.index[index], self.kept[index], self.box[index])


class Mixing:
    """Draws partners for all images of an epoch, and mixes a batch with the batch of its partners."""

    def __init__(self, settings: AugmentSettings, classes: int):
        self.settings, self.classes = settings, classes

    def draw(self, count: int, generator: torch.Generator) -> Partners:
        """Draw for `count` images at once; where both kinds are on, half of the images get each."""
        s = self.settings
        index = torch.randperm(count, generator=generator)
        u = torch.rand(4, count, generator=generator, dtype=torch.float64).numpy()
        pasted = u[0] < (0.5 if s.mixup else 1.0) if s.cutmix else np.zeros(count, bool)
        kept = np.where(pasted, beta.ppf(u[1], *[s.cutmix or 1] * 2), beta.ppf(u[1], *[s.mixup or 1] * 2))
        kept = np.maximum(kept, 1 - kept)  # an image stays mostly itself; each pair is drawn both ways
        side = np.sqrt(1 - kept)
        left, top = u[2] * (1 - side), u[3] * (1 - side)
        box = np.where(pasted, np.stack([left, top, left + side, top + side]), 0).T
        return Partners(index, torch.from_numpy(kept).float(), torch.from_numpy(box).float())

    def __call__(
        self, x: Tensor, other_x: Tensor, y: Tensor, other_y: Tensor, partners: Partners
    ) -> tuple[Tensor, Tensor]:
        """Mix grey levels (B, S, S) and classes (B,) with those of the `partners` of the batch.

        Returns the images (B, S, S), and the classes as probabilities, `float32` (B, C).
        """
        kept, box = partners.kept.to(x.device), partners.box.to(x.device)
        centres = ((torch.arange(x.shape[-1], device=x.device) + 0.5) / x.shape[-1])[None]
        left, top, right, bottom = box.T[..., None]
        columns, rows = (centres >= left) & (centres < right), (centres >= top) & (centres < bottom)
        inside = rows[:, :, None] & columns[:, None, :]
        pasted = (box[:, 2] > box[:, 0])[:, None, None]
        blend = kept[:, None, None] * x + (1 - kept)[:, None, None] * other_x
        mixed = torch.where(pasted, torch.where(inside, other_x, x), blend)
        own, other = (functional.one_hot(classes, self.classes).float() for classes in (y, other_y))
        share = kept[:, None]
        return mixed, share * own + (1 - share) * other
