"""Test-time views: the answer to an image is the mean of what a network says of the image and of crops of it.

A. Krizhevsky, I. Sutskever, G. E. Hinton, "ImageNet classification with deep convolutional neural networks" (2012),
section 4.1. There are no mirrored views, since the heart is on one side.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

CROP = 0.9  # side of a crop, as a share of the side of the image
# Places of the crops, from 0 (top, left) to 1 (bottom, right): centre, left, right, top, bottom.
_PLACES = ((0.5, 0.5), (0.5, 0.0), (0.5, 1.0), (0.0, 0.5), (1.0, 0.5))
MOST = 1 + len(_PLACES)


class Views(nn.Module):
    """The first `count` views of images: the image, then its crops at the size of the image; 1 <= count <= `MOST`.

    Logits are averaged, not probabilities: the temperature, by which all of them are divided, then means the same
    before and after, and a network whose head is linear answers as its head does to the mean of the features.
    """

    def __init__(self, count: int, size: int):
        super().__init__()
        self.count, self.size, self.side = count, size, round(CROP * size)
        room = size - self.side
        self.corners = [(round(down * room), round(right * room)) for down, right in _PLACES[: count - 1]]

    def forward(self, grey: Tensor) -> Tensor:
        """Grey levels (B, S, S) to (count * B, S, S), view by view; a single view is `grey` as it is."""
        if self.count == 1:
            return grey
        image = grey[:, None].float()
        crops = [image[:, :, top : top + self.side, left : left + self.side] for top, left in self.corners]
        scaled = [functional.interpolate(crop, (self.size, self.size), mode="bilinear") for crop in crops]
        return torch.cat([image, *scaled])[:, 0]

    def mean(self, logits: Tensor) -> Tensor:
        """Logits of all views, (count * B, C), to those of the images, (B, C)."""
        return logits if self.count == 1 else logits.unflatten(0, (self.count, -1)).mean(0)

    def of_images(self, values: Tensor) -> Tensor:
        """Of values of all views, (count * B, ...), those of the images themselves, (B, ...)."""
        return values if self.count == 1 else values.unflatten(0, (self.count, -1))[0]
