"""Class activation maps: which places of the picture a class's logit comes from.

B. Zhou et al., "Learning deep features for discriminative localization" (CVPR 2016). Exact where the head is linear on
the mean of the last feature map: the map's mean, with the bias added, is the logit.
"""

import numpy as np
import torch
from numpy import ndarray
from torch import nn

from cxr.evaluation.predictor import Predictor
from cxr.imaging.heatmap import heat
from cxr.models.build import Network

CENTRE = 0.75  # of both sides: the central region
_TOLERANCE = 1e-3


class Activation:
    """Maps for the network of `predictor`; use `Activation.of`, which is None where no exact map exists."""

    def __init__(self, predictor: Predictor, pool: nn.Module, head: nn.Linear):
        self.predictor, self.pool, self.head = predictor, pool, head

    @classmethod
    def of(cls, predictor: Predictor, network: Network) -> "Activation | None":
        """Checks on a picture of noise that mean of the map + bias is the logit."""
        pools = [m for m in predictor.module.modules() if isinstance(m, nn.AdaptiveAvgPool2d)
                 and m.output_size in (1, (1, 1))]  # fmt: skip
        if not pools or network.members:
            return None
        head = predictor.module.get_submodule(network.head)
        made, size = cls(predictor, pools[-1], head), predictor.spec.size
        noise = np.random.default_rng(0).integers(0, 256, (1, size, size), dtype=np.uint8)
        try:
            maps, logits = made._maps(noise)
        except RuntimeError:  # of a shape that the head cannot be laid over
            return None
        return made if np.allclose(maps.mean((2, 3)), logits, atol=_TOLERANCE * (1 + np.abs(logits).max())) else None

    def maps(self, rasters: ndarray) -> ndarray:
        """Maps of every class, `float32` of shape (B, C, h, w), for `uint8` rasters of shape (B, S, S)."""
        return self._maps(rasters)[0]

    def _maps(self, rasters: ndarray) -> tuple[ndarray, ndarray]:
        seen: list[torch.Tensor] = []
        hook = self.pool.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = self.predictor.logits(rasters)
        finally:
            hook.remove()
        with torch.inference_mode():
            features = torch.cat(seen)
            maps = torch.einsum("bkhw,ck->bchw", features, self.head.weight) + self.head.bias[:, None, None]
        return maps.cpu().numpy(), logits


def share_inside(own: ndarray, size: int = 224) -> float:
    """Share of what speaks for the class that lies in the central region (its own share of the area is 0.5625)."""
    large = heat(own, size)
    margin = round(size * (1 - CENTRE) / 2)
    return float(large[margin:-margin, margin:-margin].sum() / max(float(large.sum()), 1e-9))
