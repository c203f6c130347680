"""The dropout between the last block of a network and its head, which the setting `dropout` is about."""

from typing import Any

from torch import Tensor, nn

from cxr.models import timm_models
from cxr.models.build import Network
from cxr.models.freezing import blocks


def before_head(network: Network) -> list[nn.Dropout]:
    """The dropout layers between the last block and the logits; empty where the architecture has none there.

    Many networks of timm have a rate there instead of a layer. They get a layer of that rate in front of their head; it
    has no weights, so that state dicts stay as they are. Call this before the network is cut.
    """
    module: Any = network.module
    last = blocks(network)[-1]
    named = list(module.named_modules())
    start = [name for name, _ in named].index(last)
    found = [m for name, m in named[start:] if isinstance(m, nn.Dropout) and not name.startswith(f"{last}.")]
    rate = getattr(module, "drop_rate", None)
    if found or not timm_models.owns(network.name) or not isinstance(rate, int | float):
        return found
    layer, head = nn.Dropout(rate), module.get_submodule(network.head)
    # A cut network is traced in eval mode, which leaves out what is dropped at a mere rate: it would never be dropped.
    module.drop_rate = 0.0
    head.dropout = layer
    head.register_forward_pre_hook(_drop)
    return [layer]


def _drop(head: nn.Module, inputs: tuple[Tensor]) -> Any:
    return head.get_submodule("dropout")(*inputs)
