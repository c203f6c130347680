"""Splitting a network into a frozen prefix and a trainable suffix.

The cut is made in the graph that torch.fx traces, so that any architecture whose blocks form a chain can be cut. Both
halves share their modules with the network: training the suffix trains the network.
"""

import copy
import inspect
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cxr.errors import CxrError, in_short
from cxr.models import timm_models
from cxr.models.build import Network
from cxr.models.efficientnet_lite import SameConv2d

# A child that holds this share of the backbone is a container of blocks, not a block. Stages are another container,
# however small they are beside a wide layer after them (that of timm's MobileNetV3 holds half of the weights).
_CONTAINER_SHARE = 0.8
# A frozen prefix runs on whole chunks of this many images, the last one padded: kernels may round odd batch sizes
# differently, and the features of an image would depend on its neighbours. On a CPU small chunks stay in its caches
# (measured: 8 is 1.2 to 1.8 times as fast as 64); a GPU takes the whole batch at once.
CHUNK = 8
# Convolutions that a batch norm can be folded into. Other subclasses may compute more: timm standardises weights, and
# its batch norms have an activation.
_PLAIN = (nn.Conv2d, SameConv2d)


def blocks(network: Network) -> list[str]:
    """Names of the backbone's blocks from the input to the head, such as `features.0` to `features.8`.

    A stage, where a network has stages of several blocks each, counts as one. Norms between the blocks of a network of
    timm are no blocks: each belongs to the one before it.
    """
    smallest = 2 if timm_models.owns(network.name) else 1  # dimensions of a weight; those of norms have one
    names = [name for name in _learning(network.module, smallest) if not _holds(name, network.head)]
    while True:
        children = [network.module.get_submodule(name) for name in names]
        large = _CONTAINER_SHARE * sum(_size(child) for child in children)
        for index, child in enumerate(children):
            inner = _learning(child, smallest)
            if len(inner) > 1 and (_size(child) >= large or _has_stages(child, inner)):
                names[index : index + 1] = [f"{names[index]}.{name}" for name in inner]
                break
        else:
            return names


def depths(network: Network) -> dict[str, int]:
    """For every parameter, how many blocks lie between it and the logits; 0 for the head.

    A parameter outside all blocks (a norm, the position embedding of a transformer) counts with the block before it,
    or with the first one.
    """
    names = blocks(network)
    found, at = {}, 0
    head = network.head.split(".", maxsplit=1)[0]
    for name, _ in network.module.named_parameters():
        at = next((i for i, block in enumerate(names) if _holds(block, name)), at)
        found[name] = 0 if _holds(head, name) else len(names) - at
    return found


def split_network(network: Network, unfreeze: int | str) -> tuple[nn.Module, nn.Module]:
    """Cut `network.module` into (prefix, suffix) with `suffix(prefix(x)) == module(x)`.

    `unfreeze` counts blocks from the head: 0 leaves the suffix the head alone (with the dropout before it), "all" gives
    it the whole network, and so does the number of all blocks where nothing comes before them. The prefix is meant for
    eval mode without gradients. Names in the suffix's state dict are those in the network's.

    Raises:
        CxrError: the network has fewer blocks, or its graph has no single tensor to cut at.
    """
    if isinstance(unfreeze, str):
        return nn.Identity(), network.module
    names = blocks(network)
    if unfreeze > len(names):
        raise CxrError(f"unfreeze={unfreeze}: {network.name} has {len(names)} blocks; allowed: 0 to {len(names)}, all")
    graph = _traced(network, names)
    nodes = list(graph.nodes)
    first = _head_start(nodes, network) if unfreeze == 0 else _block_start(nodes, names[-unfreeze:])
    cut = nodes.index(first)
    crossing = {arg for node in nodes[cut:] for arg in node.all_input_nodes if nodes.index(arg) < cut}
    tensors = [node for node in crossing if node.op != "get_attr"]
    if len(tensors) != 1:
        raise CxrError(f"unfreeze={unfreeze}: {network.name} cannot be cut there; try another number or all")
    boundary = tensors[0]
    if boundary.op == "placeholder":
        return nn.Identity(), network.module
    return _prefix(network.module, graph, boundary), _suffix(network.module, nodes[cut:], boundary)


def run_frozen(prefix: nn.Module, x: Tensor) -> Tensor:
    """`prefix(x)` without gradients; on a CPU, the features of an image do not depend on the batch it is in."""
    if isinstance(prefix, nn.Identity):
        return x
    with torch.no_grad():
        missing = -len(x) % CHUNK
        padded = torch.cat([x, x[:1].expand(missing, *x.shape[1:])]) if missing else x
        padded = padded.contiguous(memory_format=torch.channels_last)
        chunks = padded.split(CHUNK) if x.device.type == "cpu" else [padded]
        return torch.cat([prefix(chunk) for chunk in chunks])[: len(x)]


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Copy a module for inference, with each batch norm that follows a convolution folded into its weights."""
    folded = copy.deepcopy(module).eval().requires_grad_(False)
    for sequence in [m for m in folded.modules() if isinstance(m, nn.Sequential)]:
        children = list(sequence.named_children())
        for (conv_name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and type(conv) in _PLAIN and type(norm) is nn.BatchNorm2d:
                setattr(sequence, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(sequence, norm_name, nn.Identity())
    return folded


class _Tracer(fx.Tracer):
    """Traces whole modules as leaves, except the containers that hold the blocks and the head."""

    def __init__(self, block_names: list[str], head: str):
        super().__init__()
        self.containers = {name.rpartition(".")[0] for name in (*block_names, head)} - {""}
        self.containers |= {outer for name in self.containers for outer in _outer(name)}

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return name not in self.containers and not isinstance(module, nn.Sequential)


def _traced(network: Network, names: list[str]) -> fx.Graph:
    """The graph of the network as a function of the images alone; further arguments have their defaults."""
    arguments = list(inspect.signature(network.module.forward).parameters.values())[1:]
    defaults = {argument.name: argument.default for argument in arguments}
    try:
        graph = _Tracer(names, network.head).trace(network.module, concrete_args=defaults or None)
    except fx.proxy.TraceError as error:
        raise CxrError(
            f"{network.name} cannot be cut into a frozen and a trained half ({in_short(error)}); fine-tune it with "
            "unfreeze=all, or choose another architecture"
        ) from None
    for placeholder in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        _erase(graph, placeholder)
    return graph


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """Erase a node and all that is computed from it: of a fixed argument, the checks of its value."""
    for user in list(node.users):
        _erase(graph, user)
    graph.erase_node(node)


def _outer(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _prefix(module: nn.Module, graph: fx.Graph, boundary: fx.Node) -> nn.Module:
    half = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        copies[node] = half.node_copy(node, copies.__getitem__)
        if node is boundary:
            break
    half.output(copies[boundary])
    return _module(module, half)


def _suffix(module: nn.Module, nodes: list[fx.Node], boundary: fx.Node) -> nn.Module:
    half = fx.Graph()
    copies = {boundary: half.placeholder("features")}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:  # a parameter of the module itself that was read before the cut
            copies[node] = half.node_copy(node)
        return copies[node]

    for node in nodes:
        copies[node] = half.node_copy(node, copied)
    return _module(module, half)


def _module(module: nn.Module, graph: fx.Graph) -> nn.Module:
    half = fx.GraphModule(module, graph)
    half.graph.eliminate_dead_code()
    half.delete_all_unused_submodules()
    half.recompile()
    return half


def _block_start(nodes: list[fx.Node], unfrozen: list[str]) -> fx.Node:
    return next(n for n in nodes if n.op == "call_module" and any(_holds(block, str(n.target)) for block in unfrozen))


def _head_start(nodes: list[fx.Node], network: Network) -> fx.Node:
    node = next(n for n in nodes if n.op == "call_module" and n.target == network.head)
    before = node.all_input_nodes[0]
    dropped = before.op == "call_module" and isinstance(network.module.get_submodule(str(before.target)), nn.Dropout)
    return before if dropped else node


def _holds(outer: str, name: str) -> bool:
    return name == outer or name.startswith(outer + ".")


def _learning(module: nn.Module, dimensions: int) -> list[str]:
    """Names of the children that have weights of at least so many dimensions."""
    children = module.named_children()
    return [name for name, child in children if any(p.dim() >= dimensions and p.numel() for p in child.parameters())]


def _has_stages(module: nn.Module, inner: list[str]) -> bool:
    """Whether a module is a sequence of sequences of blocks; a stem is one of sequences of mere layers."""
    stages = [module.get_submodule(name) for name in inner]
    sequences = all(isinstance(sequence, nn.Sequential) for sequence in (module, *stages))
    return sequences and any(any(block.children()) for stage in stages for block in stage.children())


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
