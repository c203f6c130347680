"""Class activation maps: the regions of an image that the logit of a class comes from.

B. Zhou et al., "Learning deep features for discriminative localization" (CVPR 2016). A map is exact if the head is
linear on the spatial mean of the last feature map: the mean of the map, with the bias included, is the logit. A layer
norm of that mean, as ConvNeXt has one, shifts and scales all places of an image alike, and leaves the map exact.
Transformers that answer from a class token have no such map. A map shows the image itself, without the other views of a
bundle that has several.
"""

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor, nn

from cxr.evaluation.predictor import Predictor
from cxr.imaging.heatmap import heat
from cxr.models.build import Network

CENTRE = 0.75  # side of the central region, as a fraction of the side of the image
_TOLERANCE = 1e-3


class ClassActivationMap:
    """Class activation maps of the network of `predictor`; build it with `ClassActivationMap.of`."""

    def __init__(self, predictor: Predictor, pool: nn.Module, norm: nn.LayerNorm | None, head: nn.Linear):
        self.predictor, self.pool, self.norm, self.head = predictor, pool, norm, head

    @classmethod
    def of(cls, predictor: Predictor, network: Network) -> "ClassActivationMap | None":
        """The maps of a network, or None if it has no exact ones, as checked on an image of noise."""
        pools = [
            module
            for module in predictor.module.modules()
            if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
        ]
        if not pools or network.members:
            return None
        head = predictor.module.get_submodule(network.head)
        if not isinstance(head, nn.Linear):
            return None
        norms = [
            module
            for module in predictor.module.modules()
            if isinstance(module, nn.LayerNorm) and tuple(module.normalized_shape) == (head.in_features,)
        ]
        candidates = [cls(predictor, pools[-1], norm, head) for norm in (None, *norms[-1:])]
        return next((candidate for candidate in candidates if candidate._is_exact()), None)

    def _is_exact(self) -> bool:
        size = self.predictor.spec.size
        noise = np.random.default_rng(0).integers(0, 256, (1, size, size), dtype=np.uint8)
        try:
            maps, logits = self.maps_and_logits(noise)
        except RuntimeError:  # the head does not fit the channels of the feature map
            return False
        return np.allclose(maps.mean((2, 3)), logits, atol=_TOLERANCE * (1 + np.abs(logits).max()))

    def maps(self, rasters: ndarray) -> ndarray:
        """Maps of every class, `float32` of shape (B, C, h, w), for `uint8` rasters of shape (B, S, S)."""
        return self.maps_and_logits(rasters)[0]

    def of_features(self, features: Tensor) -> Tensor:
        """Maps (B, C, h, w) from what the pooling layer sees, (B, K, h, w)."""
        norm = self.norm
        if norm is not None:
            pooled = features.mean((2, 3), keepdim=True)
            spread = (pooled.var(1, unbiased=False, keepdim=True) + norm.eps).sqrt()
            features = (features - pooled.mean(1, keepdim=True)) / spread
            features = features * norm.weight[:, None, None] + norm.bias[:, None, None]
        return torch.einsum("bkhw,ck->bchw", features, self.head.weight) + self.head.bias[:, None, None]

    def maps_and_logits(self, rasters: ndarray) -> tuple[ndarray, ndarray]:
        """The maps, and the logits (B, C) of the images alone."""
        pool_inputs: list[torch.Tensor] = []
        hook = self.pool.register_forward_pre_hook(lambda _, inputs: pool_inputs.append(inputs[0]))
        try:
            logits = self.predictor.logits_of_images(rasters)
        finally:
            hook.remove()
        with torch.inference_mode():
            maps = self.of_features(torch.cat(pool_inputs))
        return maps.cpu().numpy(), logits


def share_inside(class_map: ndarray, size: int = 224) -> float:
    """Share of the positive activation of a map (h, w) in the central region, whose share of the area is 0.5625."""
    heatmap = heat(class_map, size)
    margin = round(size * (1 - CENTRE) / 2)
    return float(heatmap[margin:-margin, margin:-margin].sum() / max(float(heatmap.sum()), 1e-9))
