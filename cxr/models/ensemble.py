"""Ensembles: several networks as one, by the mean of their calibrated probabilities.

L. K. Hansen, P. Salamon, "Neural network ensembles", IEEE TPAMI 12 (1990).
"""

import torch

from cxr.errors import CxrError
from cxr.models.build import Ensemble, Network
from cxr.models.bundle import Bundle


def combine(bundles: list[Bundle]) -> Bundle:
    """Combine bundles that share architecture, classes and input into one, which is not calibrated yet.

    Raises:
        CxrError: there is only one bundle, or they differ.
    """
    first = bundles[0].network
    if len(bundles) < 2:
        raise CxrError(f"an ensemble of {len(bundles)} bundle; give at least 2")
    for other in (bundle.network for bundle in bundles[1:]):
        for what in ("name", "classes", "spec"):
            if getattr(other, what) != getattr(first, what):
                raise CxrError(
                    f"members of an ensemble differ in {what}: {getattr(first, what)}, {getattr(other, what)}"
                )
    findings = sorted({bundle.finding for bundle in bundles})
    if len(findings) > 1:
        raise CxrError(f"members of an ensemble differ in the finding: {', '.join(findings)}")
    module = Ensemble([bundle.network.module for bundle in bundles])
    module.temperatures.copy_(torch.tensor([bundle.temperature for bundle in bundles]))
    network = Network(first.name, first.classes, first.spec, module.eval(), head="", members=len(bundles))
    return Bundle(network, finding=findings[0])
