"""Mixing: images blended, or pasted into one another, with their labels; frames exchanged without them; blanked images.

H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018; S. Yun et al., "CutMix", 2019. An exchanged frame
leaves the label as it is, so that what surrounds the lungs (collimation, markers, the size of the child) tells nothing
of the class: as the "mixed-rand" backgrounds of K. Xiao et al., "Noise or Signal: The Role of Image Backgrounds in
Object Recognition", 2021. A blanked image has nothing but its frame left, and is mixed with no other; it is labelled so
that every class is to be as likely as any other where no lungs are seen, in the spirit of the "outlier exposure" of
D. Hendrycks et al., 2019.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import beta
from torch import Tensor
from torch.nn import functional

from cxr.loading.augment import Augment, Draws, in_half
from cxr.loading.degrade import inside_box
from cxr.settings.augment import AugmentSettings

BLANK = (0.05, 0.2)  # range of the width of the frame that is left of a blanked image, as a share of the side


@dataclass(frozen=True)
class Partners:
    """With which image each of n images is mixed in an epoch.

    Attributes:
        index: the other image, `int64` of shape (n,).
        kept: share of the image that stays its own, 0.5..1, of shape (n,).
        box: for a paste, its place (left, top, right, bottom) as shares of the side; empty for a blend; (n, 4).
        frame: width of the frame that is taken from the other image, as a share of the side, of shape (n,).
        blank: width of the frame within which the image is black, as a share of the side; 0.5: nowhere; of shape (n,).
    """

    index: Tensor
    kept: Tensor
    box: Tensor
    frame: Tensor
    blank: Tensor

    def to(self, device: torch.device) -> "Partners":
        """The same on a device."""
        return Partners(*(values.to(device) for values in vars(self).values()))

    def of(self, index: Tensor) -> "Partners":
        """Those of some images, by their numbers `int64` of shape (B,)."""
        return Partners(*(values[index] for values in vars(self).values()))


class Mixing:
    """Draws partners for all images of an epoch, and mixes the images of a batch with them.

    Args:
        settings: of the augmentation.
        classes: how many there are, C.
        weights: of the classes in the loss, of shape (C,); None: all alike. The label of a blanked image makes up for
            them: the loss is least where every class has the same probability.
    """

    def __init__(self, settings: AugmentSettings, classes: int, weights: Tensor | None = None):
        self.settings, self.classes = settings, classes
        shares = torch.ones(classes) if weights is None else 1 / weights
        self.blank_label = shares / shares.sum()

    def draw(self, count: int, generator: torch.Generator) -> Partners:
        """Draw for `count` images at once; where blends and pastes are on, half of the images get each."""
        s = self.settings
        index = torch.randperm(count, generator=generator)
        drawn = torch.rand(7, count, generator=generator, dtype=torch.float64)
        u = drawn.numpy()
        pasted = u[0] < (0.5 if s.mixup else 1.0) if s.cutmix else np.zeros(count, bool)
        kept = np.where(pasted, beta.ppf(u[1], *[s.cutmix or 1] * 2), beta.ppf(u[1], *[s.mixup or 1] * 2))
        kept = np.maximum(kept, 1 - kept) if self.settings.blends else np.ones(count)  # an image stays mostly itself
        side = np.sqrt(1 - kept)
        left, top = u[2] * (1 - side), u[3] * (1 - side)
        box = np.where(pasted, np.stack([left, top, left + side, top + side]), 0).T
        frame = s.frame * in_half(drawn[4]).numpy()
        blanked = u[5] < s.blank
        blank = np.where(blanked, BLANK[0] + (BLANK[1] - BLANK[0]) * u[6], 0.5)
        kept, box = np.where(blanked, 1, kept), np.where(blanked[:, None], 0, box)  # nothing of a partner's lungs
        return Partners(index, *(torch.from_numpy(values).float() for values in (kept, box, frame, blank)))

    def __call__(
        self, rasters: Tensor, y: Tensor, partners: Partners, augment: Augment, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """Views (B, S, S) of a batch of rasters, augmented and mixed, and their labels.

        `rasters`, classes `y` and `draws` are of the B images, and after them, if images are mixed with one another, of
        their B partners; `partners` is of the B images.
        """
        n = len(partners.kept)
        own = self.on_rasters(rasters[:n], rasters[-n:], partners)
        labels = self.labels(y[:n], y[-n:], partners)
        if not self.settings.blends:
            return augment(own, draws.of(torch.arange(n))), labels
        views = augment(torch.cat([own, rasters[n:]]), draws)
        return self.blend(views[:n], views[n:], partners), labels

    def on_rasters(self, own: Tensor, other: Tensor, partners: Partners) -> Tensor:
        """Exchange frames with the images of the `partners`, and blank images, all of shape (B, R, R).

        This comes before augmentation, which then changes frame and inside alike: only the seam tells them apart.
        """
        p = partners.to(own.device)
        if self.settings.frame:
            own = torch.where(inside_box(own, p.frame, p.frame, 1 - p.frame, 1 - p.frame), own, other)
        if self.settings.blank:
            own = own.masked_fill(inside_box(own, p.blank, p.blank, 1 - p.blank, 1 - p.blank), 0)
        return own

    def blend(self, x: Tensor, other_x: Tensor, partners: Partners) -> Tensor:
        """Blend grey levels (B, S, S) with those of the `partners`, or paste squares of these into them."""
        p = partners.to(x.device)
        pasted = (p.box[:, 2] > p.box[:, 0])[:, None, None]
        blended = p.kept[:, None, None] * x + (1 - p.kept)[:, None, None] * other_x
        return torch.where(pasted, torch.where(inside_box(x, *p.box.T), other_x, x), blended)

    def labels(self, y: Tensor, other_y: Tensor, partners: Partners) -> Tensor:
        """Classes `int64` (B,) as they are if only frames are exchanged, else as probabilities, `float32` (B, C)."""
        if not self.settings.softens:
            return y
        p = partners.to(y.device)
        own, other = (functional.one_hot(classes, self.classes).float() for classes in (y, other_y))
        shares = p.kept[:, None] * own + (1 - p.kept)[:, None] * other
        return torch.where((p.blank < 0.5)[:, None], self.blank_label.to(y.device), shares)
