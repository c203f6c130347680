"""Do class activation maps depend on what the network has learnt? A check by randomised weights, from the head down.

J. Adebayo et al., "Sanity checks for saliency maps" (NeurIPS 2018): a map that looks the same after the weights became
random shows the image, not the model. Weights are drawn from a normal distribution with the mean and the spread of
those they replace, so that activations keep their scale.
"""

import copy

import numpy as np
import torch
from numpy import ndarray
from scipy.stats import rankdata
from torch import nn

from cxr.evaluation import bootstrap
from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.probes import MapSanity, MapSimilarity
from cxr.evaluation.scores import Sample, estimate
from cxr.models import freezing
from cxr.models.build import Network

SAME = 0.5  # mean rank correlation at and above which maps of random weights count as the same
_STAGES = 6  # of the cascade, at most: a pass over the images each


def sanity(activation: ClassActivationMap, network: Network, rasters: ndarray, sample: Sample, seed: int) -> MapSanity:
    """Similarity of the maps of the predicted class before and after weights become random, in a cascade.

    The network itself is left as it is.

    Args:
        activation: the maps of the network.
        network: the network, for the names of its blocks.
        rasters: images, `uint8` of shape (n, S, S).
        sample: the same images, for the intervals.
        seed: of the random weights.
    """
    maps, logits = activation.maps_and_logits(rasters)
    classes = logits.argmax(1)
    shown = maps[np.arange(len(maps)), classes]
    twin = copy.deepcopy(activation)
    generator = torch.Generator().manual_seed(seed)
    cascade = []
    for words, modules in _stages(twin, network):
        for module in modules:
            randomise(module, generator)
        randomised = twin.maps(rasters)[np.arange(len(maps)), classes]
        similarity = estimate(bootstrap.mean(rank_correlation(shown, randomised), sample.weights))
        cascade.append(MapSimilarity(randomised=words, similarity=similarity))
    last = cascade[-1].similarity.value
    return MapSanity(images=len(rasters), cascade=cascade, depends=last is not None and last < SAME)


def rank_correlation(first: ndarray, second: ndarray) -> ndarray:
    """Spearman's rank correlation of the places of each pair of maps (n, h, w), of shape (n,); 0 for a flat map."""
    a, b = (rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    spread = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.where(spread > 0, (a * b).sum(1) / np.maximum(spread, 1e-12), 0.0)


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Replace all weights of a module by random ones of the same mean and spread."""
    with torch.no_grad():
        for weight in module.parameters():
            spread = weight.std(correction=0).item()
            drawn = torch.randn(weight.shape, generator=generator) * spread + weight.mean().item()
            weight.copy_(drawn)


def _stages(twin: ClassActivationMap, network: Network) -> list[tuple[str, list[nn.Module]]]:
    """What becomes random at each stage, and the modules that do so there and did not before."""
    module = twin.predictor.module
    names = freezing.blocks(network)[::-1]
    ends = np.unique(np.linspace(1, len(names), min(_STAGES - 1, len(names))).round().astype(int))
    stages: list[tuple[str, list[nn.Module]]] = [("the head", [twin.head])]
    before = 0
    for end in ends:
        words = "all weights" if end == len(names) else f"the head and {end} of {len(names)} blocks"
        blocks = [module.get_submodule(name) for name in names[before:end]]
        # Norms between and after the blocks belong to none of them: at the end, everything becomes random.
        stages.append((words, [module] if end == len(names) else blocks))
        before = end
    return stages
